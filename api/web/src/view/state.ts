// What the whole page shares: who is signed in, where the reader is, and a few facts about the window. All of it signals.

import { signal } from "@preact/signals";
import type { Session } from "../core/session";
import { parseHash } from "../core/url";

/** `undefined`: not asked yet; `null`: signed out. */
export const session = signal<Session | null | undefined>(undefined);

export const route = signal(parseHash(location.hash));
addEventListener("hashchange", () => {
  route.value = parseHash(location.hash);
});

/** The time, by the second, for ages and durations. */
export const now = signal(Date.now());
setInterval(() => {
  if (document.visibilityState === "visible") {
    now.value = Date.now();
  }
}, 1000);

/** Room for two variations side by side. */
const wideQuery = matchMedia("(min-width: 1080px)");
export const wide = signal(wideQuery.matches);
wideQuery.addEventListener("change", () => {
  wide.value = wideQuery.matches;
});

const CLOCK_KEY = "runcast.clock";

/** Whether lines show their time. Kept in this browser; where storage is refused, for this visit. */
export const clockShown = signal(readClock());

function readClock(): boolean {
  try {
    return localStorage.getItem(CLOCK_KEY) === "on";
  } catch {
    return false;
  }
}

export function toggleClock(): void {
  clockShown.value = !clockShown.value;
  try {
    localStorage.setItem(CLOCK_KEY, clockShown.value ? "on" : "off");
  } catch {
    // A preference that cannot be kept is not worth a message.
  }
}
