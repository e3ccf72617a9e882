// Chromium with a page that is signed in to the gateway, and what all clients here say: one JSON object on a line of
// stdout for each thing that happened, with `saw` and the moment `at` (milliseconds).
//
// CLIENT_URL is the stream, CLIENT_TOKEN the token, CLIENT_LAST_EVENT_ID a cursor for clients that can send one at first;
// RUNCAST_E2E_BROWSER names another Chromium.
import { chromium } from "playwright-core";

/** Names of all frames that a gateway sends; `message` is what a frame without a name would be. */
export const NAMES =
  "output log status progress metric heartbeat control gap ready degraded closing end message".split(" ");

export const url = new URL(process.env.CLIENT_URL);

export const token = process.env.CLIENT_TOKEN;

export function tell(saw, more = {}) {
  process.stdout.write(`${JSON.stringify({ saw, at: Date.now(), ...more })}\n`);
}

/** How Chromium is started. */
export const launching = {
  executablePath: process.env.RUNCAST_E2E_BROWSER ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
};

/** Opens a page of the gateway's own origin, for a browser asks with its cookie. */
export async function openPage() {
  const browser = await chromium.launch(launching);
  const page = await browser.newPage();
  await page.exposeFunction("report", tell);
  // By the clock of the page: what it says takes a while to arrive here.
  await page.addInitScript(() => {
    window.tell = (saw, more) => window.report(saw, { at: Date.now(), ...more });
  });
  // Whatever is served there: the page of Runcast would open streams of its own.
  await page.goto(`${url.origin}/healthz`);
  const status = await page.evaluate(async (token) => {
    const body = JSON.stringify({ token });
    const headers = { "content-type": "application/json" };
    return (await fetch("/v1/session", { method: "POST", headers, body })).status;
  }, token);
  if (status !== 200) {
    throw new Error(`signing in was answered with ${status}`);
  }
  return { browser, page };
}
