// State that all views share, as signals: the session, the route, the time, and a few facts about
// the browser window.

import { signal } from "@preact/signals";
import { issuerError, type Session } from "../core/session";
import { takeSignInCode } from "../core/sign_in_link";
import { parseHash, signInFailure } from "../core/url";

/** `undefined`: not loaded yet; `null`: signed out. */
export const session = signal<Session | null | undefined>(undefined);

/** The text of the last failed sign-in; empty for none. */
export const signInProblem = signal(issuerError(signInFailure(location.hash)));

/** The sign-in link that the page was opened with; a link that is opened later replaces it. */
export const signInLink = signal(readSignInLink());

function readSignInLink(): { readonly code: string } | null {
  const code = takeSignInCode(location, history);
  return code === null ? null : { code };
}

// After the sign-in link, which rewrites the hash.
export const route = signal(parseHash(location.hash));
addEventListener("hashchange", () => {
  signInLink.value = readSignInLink() ?? signInLink.value;
  route.value = parseHash(location.hash);
});

/** The current time, updated every second, for ages and durations. */
export const now = signal(Date.now());
setInterval(() => {
  if (document.visibilityState === "visible") {
    now.value = Date.now();
  }
}, 1000);

/** Wide enough for two variations side by side. */
const wideQuery = matchMedia("(min-width: 1080px)");
export const wide = signal(wideQuery.matches);
wideQuery.addEventListener("change", () => {
  wide.value = wideQuery.matches;
});

const CLOCK_KEY = "runcast.clock";

/**
 * Whether lines show their time. Stored in this browser; if it refuses storage, until the next
 * reload.
 */
export const showClock = signal(readClock());

function readClock(): boolean {
  try {
    return localStorage.getItem(CLOCK_KEY) === "on";
  } catch {
    return false;
  }
}

export function toggleClock(): void {
  showClock.value = !showClock.value;
  try {
    localStorage.setItem(CLOCK_KEY, showClock.value ? "on" : "off");
  } catch {
    // A preference that cannot be stored is not worth a message.
  }
}
