// Signing in and out. The session is a cookie that the page cannot read. A credential is sent once
// and never stored. The page stores a random name of this browser, so that signing in again
// replaces the browser's previous session.

import { ApiError, getJson, request } from "./api";
import { issuerPath, SESSION_PATH, SIGN_IN_METHODS_PATH } from "./url";

export interface Session {
  name: string;
  scopes: string[];
}

/** The session that the browser already has; null if it has none. */
export async function currentSession(): Promise<Session | null> {
  try {
    return await getJson<Session>(SESSION_PATH);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      return null;
    }
    throw error;
  }
}

/** A token, a name with a password, or the code of a one-time sign-in link. */
export type Credential = { token: string } | { user: string; password: string } | { code: string };

export function signIn(credential: Credential): Promise<Session> {
  const client = clientName();
  return getJson<Session>(SESSION_PATH, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(client === null ? credential : { ...credential, client }),
  });
}

/** An OpenID Connect issuer that users can sign in with. */
export interface Issuer {
  name: string;
}

/** The issuer that the gateway is configured with, if any. */
export async function getIssuer(): Promise<Issuer | null> {
  return (await getJson<{ oidc?: Issuer }>(SIGN_IN_METHODS_PATH)).oidc ?? null;
}

/** The link that signs in with the issuer and then comes back to the current page. */
export function issuerHref(at: { pathname: string; search: string; hash: string }): string {
  return issuerPath(clientName(), at.pathname + at.search + at.hash);
}

/** A code that is unknown, expired or used (401), or too damaged to be a code at all. */
const LINK_REFUSED_STATUSES = [400, 401, 422];

const CLIENT_KEY = "runcast.client";

/** The name of this browser; null if the browser refuses storage. */
function clientName(): string | null {
  try {
    const stored = localStorage.getItem(CLIENT_KEY);
    if (stored !== null) {
      return stored;
    }
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const name = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem(CLIENT_KEY, name);
    return name;
  } catch {
    return null;
  }
}

export async function signOut(): Promise<void> {
  await request(SESSION_PATH, { method: "DELETE" });
}

export type SignInMethod = "token" | "password" | "link";

/** The text that the form shows when signing in has failed. */
export function signInError(error: unknown, method: SignInMethod): string {
  if (!(error instanceof ApiError)) {
    return "Signing in failed.";
  }
  if (method === "link" && LINK_REFUSED_STATUSES.includes(error.status)) {
    return "This sign-in link has expired or was already used. Sign in with a token or a password.";
  }
  switch (error.status) {
    case 0:
      return "The gateway cannot be reached. Is it running?";
    case 401:
      return method === "token"
        ? "This token is not valid. It may be mistyped, expired or revoked."
        : "The name or the password is wrong.";
    case 503:
      return "Sign-in is not available at the moment. Try again later.";
    case 429:
      return error.retryAfter === null
        ? "Too many attempts. Wait a moment."
        : `Too many attempts. Try again in ${error.retryAfter} s.`;
    default:
      return `Signing in failed: ${error.message}.`;
  }
}

/** The text that the form shows for a failure of `signInFailure`; empty for none. */
export function issuerError(failure: string | null): string {
  switch (failure) {
    case null:
      return "";
    case "stale":
      return "This sign-in expired, or it was started in another browser. Try again.";
    case "denied":
      return "The identity provider refused the sign-in.";
    case "unverified":
      return "The identity provider has no verified email address for you.";
    case "unknown":
      return "Runcast has no user for this account. Ask an administrator.";
    case "often":
      return "Too many attempts. Wait a moment.";
    case "unavailable":
      return "The identity provider is not available at the moment. Try again later.";
    default:
      return "Signing in with the identity provider failed. Try again.";
  }
}
