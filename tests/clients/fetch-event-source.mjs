// @microsoft/fetch-event-source, in the browser that it is made for. It comes back when a stream broke; when one ended it
// does so because `onclose` throws, and stays away because `onerror` throws, both as its readme says.
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
        await tell("open");
      },
      onmessage({ event, id, data, retry }) {
        tell("event", { event, id, data, retry });
      },
      onclose() {
        throw new Error("the stream has ended");
      },
      onerror(error) {
        if (error instanceof Over) {
          throw error;
        }
        tell("cut");
      },
    });
    const error = await following.catch((error) => error);
    await tell("over", { status: Number(error?.message) });
  },
  [url.pathname + url.search, process.env.CLIENT_LAST_EVENT_ID ?? null],
);
await browser.close();
