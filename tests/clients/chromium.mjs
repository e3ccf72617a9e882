// The EventSource of Chromium. Only a response of the gateway ends it.
import { NAMES, openPage, url } from "./browser.mjs";

const { browser, page } = await openPage();
await page.evaluate(
  ([path, names]) =>
    new Promise((over) => {
      const source = new EventSource(path);
      source.onopen = () => report("open");
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) {
          report("over").then(over);
        } else {
          report("cut");
        }
      };
      for (const name of names) {
        source.addEventListener(name, ({ type, lastEventId, data }) => report("event", { event: type, id: lastEventId, data }));
      }
    }),
  [url.pathname + url.search, NAMES],
);
await browser.close();
