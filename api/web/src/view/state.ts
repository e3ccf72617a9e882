// State that all views share, as signals: the session, the route, the time, and a few facts about
// the browser window.

import { signal } from "@preact/signals";
import type { Session } from "../core/session";
import { parseHash } from "../core/url";

/** `undefined`: not loaded yet; `null`: signed out. */
export const session = signal<Session | null | undefined>(undefined);

export const route = signal(parseHash(location.hash));
addEventListener("hashchange", () => {
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
