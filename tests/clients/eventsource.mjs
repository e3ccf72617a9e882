// The EventSource of npm, for Node. It is never closed from here: what ends it is the answer of the gateway.
import { EventSource } from "eventsource";
import { NAMES, tell, token, url } from "./browser.mjs";

const signedIn = (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } });
const source = new EventSource(url, { fetch: signedIn });
// Its timers do not keep a process alive by themselves.
const alive = setInterval(() => {}, 1_000_000);
source.onopen = () => tell("open");
source.onerror = (error) => {
  const over = source.readyState === EventSource.CLOSED;
  tell(over ? "over" : "cut", { status: error.code });
  if (over) {
    clearInterval(alive);
  }
};
for (const name of NAMES) {
  source.addEventListener(name, ({ type, lastEventId, data }) => tell("event", { event: type, id: lastEventId, data }));
}
