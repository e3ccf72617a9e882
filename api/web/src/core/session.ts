// Signing in and out. The session itself is a cookie that the page cannot read; the token is sent once and never kept.

import { ApiError, getJson, request } from "./api";
import { SESSION_PATH } from "./link";

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

export function signIn(token: string): Promise<Session> {
  return getJson<Session>(SESSION_PATH, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
}

export async function signOut(): Promise<void> {
  await request(SESSION_PATH, { method: "DELETE" });
}

/** What the form says when signing in failed. */
export function signInError(error: unknown): string {
  if (!(error instanceof ApiError)) {
    return "Signing in failed.";
  }
  switch (error.status) {
    case 0:
      return "The gateway cannot be reached. Is it running?";
    case 401:
      return "This token is not accepted. It may be mistyped, expired or revoked.";
    case 429:
      return error.retryAfter === null
        ? "Too many attempts. Wait a moment."
        : `Too many attempts. Try again in ${error.retryAfter} s.`;
    default:
      return `Signing in failed: ${error.message}.`;
  }
}
