// The EventSource of Chromium on a page of another origin, CLIENT_ORIGIN: it creates tickets with
// CLIENT_TOKEN, and opens CLIENT_URL with them. It is not closed when its connection breaks; the
// response to the used ticket ends it. Then it is opened once more, after the last received id.
import { createServer } from "node:http";
import { chromium } from "playwright-core";
import { launchOptions, report, token, url } from "./browser.mjs";

const origin = new URL(process.env.CLIENT_ORIGIN);
const server = createServer((_request, response) => {
  response.setHeader("content-type", "text/html");
  response.end("<!doctype html><title>elsewhere</title>");
});
await new Promise((listening) => server.listen(Number(origin.port), origin.hostname, listening));

const browser = await chromium.launch(launchOptions);
const page = await browser.newPage();
await page.exposeFunction("report", report);
await page.goto(origin.href);
await page.evaluate(
  async ([url, token]) => {
    const follow = async (after) => {
      const tickets = new URL("/v1/stream-tickets", url);
      const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
      const answer = await fetch(tickets, { method: "POST", headers, body: "{}" });
      const { ticket } = await answer.json();
      const source = new EventSource(`${url}?ticket=${ticket}&after=${after}`);
      return new Promise((over) => {
        source.onopen = () => report("open");
        source.onerror = () => {
          if (source.readyState === EventSource.CLOSED) {
            report("over").then(() => over(after));
          } else {
            report("cut");
          }
        };
        source.addEventListener("output", ({ lastEventId, data }) => {
          after = lastEventId;
          report("event", { event: "output", id: lastEventId, data });
        });
      });
    };
    await follow(await follow(""));
  },
  [url.href, token],
);
await browser.close();
server.close();
