// The EventSource of Chromium. It is never closed from here: what ends it is the answer of the gateway.
import { NAMES, openPage, url } from "./browser.mjs";

const { browser, page } = await openPage();
await page.evaluate(
  ([path, names]) =>
    new Promise((over) => {
      const source = new EventSource(path);
      source.onopen = () => tell("open");
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) {
          tell("over").then(over);
        } else {
          tell("cut");
        }
      };
      for (const name of names) {
        source.addEventListener(name, ({ type, lastEventId, data }) => tell("event", { event: type, id: lastEventId, data }));
      }
    }),
  [url.pathname + url.search, NAMES],
);
await browser.close();
