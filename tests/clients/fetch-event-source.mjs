// @microsoft/fetch-event-source, in a browser. It reconnects when a stream breaks. When one ends, it
// reconnects because `onclose` throws; it stops because `onerror` throws. Both as in its readme.
import { readFile } from "node:fs/promises";
import { openPage, url } from "./browser.mjs";

const { browser, page } = await openPage();
const folder = new URL("node_modules/@microsoft/fetch-event-source/lib/esm/", import.meta.url);
await page.route("**/fetch-event-source/*", async (route) => {
  const name = new URL(route.request().url()).pathname.split("/").pop().replace(/(\.js)?$/, ".js");
  await route.fulfill({ contentType: "text/javascript", body: await readFile(new URL(name, folder), "utf8") });
});
await page.evaluate(
  async ([path, cursor]) => {
    const { fetchEventSource } = await import("/fetch-event-source/index.js");
    class Over extends Error {}
    const headers = cursor === null ? {} : { "last-event-id": cursor };
    const following = fetchEventSource(path, {
      headers,
      openWhenHidden: true,
      async onopen(response) {
        if (response.status !== 200) {
          throw new Over(String(response.status));
        }
        await report("open");
      },
      onmessage({ event, id, data, retry }) {
        report("event", { event, id, data, retry });
      },
      onclose() {
        throw new Error("the stream has ended");
      },
      onerror(error) {
        if (error instanceof Over) {
          throw error;
        }
        report("cut");
      },
    });
    const error = await following.catch((error) => error);
    await report("over", { status: Number(error?.message) });
  },
  [url.pathname + url.search, process.env.CLIENT_LAST_EVENT_ID ?? null],
);
await browser.close();
