// The one-time sign-in link: `#/sign-in/<code>`, or `#/sign-in/<code>/runs/<id>` to open a run
// afterwards.
//
// The code is removed from the address before anything else happens, so that neither the history of
// the tab nor a copied address keeps it. It is held in memory only, and sent only if the browser
// has no session yet.

import { currentSession, type Session, signIn, signInError } from "./session";
import { parseSignInHash } from "./url";

/**
 * Removes the code of a sign-in link from the address and returns it; null for any other address.
 */
export function takeSignInCode(
  location: Pick<Location, "hash">,
  history: Pick<History, "replaceState">,
): string | null {
  const link = parseSignInHash(location.hash);
  if (link === null) {
    return null;
  }
  history.replaceState(null, "", link.target);
  return link.code;
}

/**
 * Loads the session, or signs in with the code if there is none. Throws only if the session cannot
 * be loaded; the code is then not used yet, so the caller can try again.
 */
export async function openSession(code: string | null): Promise<{ session: Session | null; problem: string }> {
  const session = await currentSession();
  if (session !== null || code === null) {
    return { session, problem: "" };
  }
  try {
    return { session: await signIn({ code }), problem: "" };
  } catch (error) {
    return { session: null, problem: signInError(error, "link") };
  }
}
