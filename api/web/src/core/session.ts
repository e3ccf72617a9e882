// Signing in and out. The session itself is a cookie that the page cannot read; what one signs in with is sent once and
// never kept. What is kept is a random name of this browser, so that signing in again replaces its session.

import { ApiError, getJson, request } from "./api";
import { issuerPath, SESSION_PATH, WAYS_PATH } from "./url";

export interface Session {
  name: string;
  scopes: string[];
}

/** The session the browser already has; null when it has none. */
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

/** A token, or a name with a password. */
export type Credential = { token: string } | { user: string; password: string };

export function signIn(credential: Credential): Promise<Session> {
  const client = clientName();
  return getJson<Session>(SESSION_PATH, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(client === null ? credential : { ...credential, client }),
  });
}

/** An issuer of OpenID Connect by which one can sign in. */
export interface Issuer {
  name: string;
}

/** The issuer, if the gateway has one. */
export async function issuer(): Promise<Issuer | null> {
  return (await getJson<{ oidc?: Issuer }>(WAYS_PATH)).oidc ?? null;
}

/** Where to go to sign in by the issuer, and to come back from to what is shown now. */
export function issuerHref(at: { pathname: string; search: string; hash: string }): string {
  return issuerPath(clientName(), at.pathname + at.search + at.hash);
}

const CLIENT_KEY = "runcast.client";

/** The name of this browser; null where storage is refused. */
function clientName(): string | null {
  try {
    const known = localStorage.getItem(CLIENT_KEY);
    if (known !== null) {
      return known;
    }
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const made = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem(CLIENT_KEY, made);
    return made;
  } catch {
    return null;
  }
}

export async function signOut(): Promise<void> {
  await request(SESSION_PATH, { method: "DELETE" });
}

/** What the form says when signing in failed. */
export function signInError(error: unknown, by: "token" | "password"): string {
  if (!(error instanceof ApiError)) {
    return "Signing in failed.";
  }
  switch (error.status) {
    case 0:
      return "The gateway cannot be reached. Is it running?";
    case 401:
      return by === "token"
        ? "This token is not accepted. It may be mistyped, expired or revoked."
        : "The name or the password is wrong.";
    case 503:
      return "Signing in is not possible at the moment. Try again in a little while.";
    case 429:
      return error.retryAfter === null
        ? "Too many attempts. Wait a moment."
        : `Too many attempts. Try again in ${error.retryAfter} s.`;
    default:
      return `Signing in failed: ${error.message}.`;
  }
}

/** What the form says when signing in by the issuer failed, by the word for it; empty for none. */
export function issuerError(word: string | null): string {
  switch (word) {
    case null:
      return "";
    case "stale":
      return "This sign-in was over before you came back, or was begun elsewhere. Try again.";
    case "denied":
      return "You were not let in there.";
    case "unverified":
      return "You are known there, but by no email address that has been verified.";
    case "unknown":
      return "You are known there, but no user here is yours. Ask an administrator.";
    case "often":
      return "Too many attempts. Wait a moment.";
    case "unavailable":
      return "Signing in there is not possible at the moment. Try again in a little while.";
    default:
      return "Signing in there failed. Try again.";
  }
}
