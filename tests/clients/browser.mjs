// Chromium with a page that is signed in to the gateway, and the reports of all clients here: one
// JSON object per line of stdout, with its kind in `saw` and its time in `at` (milliseconds).
//
// CLIENT_URL is the stream, CLIENT_TOKEN the token, CLIENT_LAST_EVENT_ID a cursor for clients that
// can send one with their first request; RUNCAST_E2E_BROWSER names another Chromium.
import { chromium } from "playwright-core";

/** Names of all frames that a gateway sends; `message` stands for a frame without a name. */
export const NAMES =
  "output log status progress metric heartbeat control gap ready degraded closing end message".split(" ");

export const url = new URL(process.env.CLIENT_URL);

export const token = process.env.CLIENT_TOKEN;

export function report(saw, more = {}) {
  process.stdout.write(`${JSON.stringify({ saw, at: Date.now(), ...more })}\n`);
}

/** The launch options of Chromium. */
export const launchOptions = {
  executablePath: process.env.RUNCAST_E2E_BROWSER ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
};

/** Opens a page of the gateway's own origin, since the browser authenticates with a cookie. */
export async function openPage() {
  const browser = await chromium.launch(launchOptions);
  const page = await browser.newPage();
  await page.exposeFunction("reportAt", report);
  // With the time of the page: its reports arrive here with a delay.
  await page.addInitScript(() => {
    window.report = (saw, more) => window.reportAt(saw, { at: Date.now(), ...more });
  });
  // Any response will do; the page of Runcast itself would open more streams.
  await page.goto(`${url.origin}/healthz`);
  const status = await page.evaluate(async (token) => {
    const body = JSON.stringify({ token });
    const headers = { "content-type": "application/json" };
    return (await fetch("/v1/session", { method: "POST", headers, body })).status;
  }, token);
  if (status !== 200) {
    throw new Error(`sign-in returned ${status}`);
  }
  return { browser, page };
}
