// The EventSource of npm, for Node. Only a response of the gateway ends it.
import { EventSource } from "eventsource";
import { NAMES, report, token, url } from "./browser.mjs";

const signedIn = (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } });
const source = new EventSource(url, { fetch: signedIn });
// Its timers alone do not keep a process alive.
const alive = setInterval(() => {}, 1_000_000);
source.onopen = () => report("open");
source.onerror = (error) => {
  const over = source.readyState === EventSource.CLOSED;
  report(over ? "over" : "cut", { status: error.code });
  if (over) {
    clearInterval(alive);
  }
};
for (const name of NAMES) {
  source.addEventListener(name, ({ type, lastEventId, data }) => report("event", { event: type, id: lastEventId, data }));
}
