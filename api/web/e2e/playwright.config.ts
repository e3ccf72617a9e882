// Runs the stories of the page in the Chromium of the system, never a downloaded one.
// RUNCAST_E2E_BROWSER names another browser. One worker and no retries: a retry would hide a lost
// line.
import { defineConfig } from "@playwright/test";

declare const process: { env: { RUNCAST_E2E_URL?: string; RUNCAST_E2E_BROWSER?: string } };

export default defineConfig({
  testDir: ".",
  timeout: 60_000,
  retries: 0,
  workers: 1,
  reporter: "list",
  outputDir: "../test-results",
  use: {
    baseURL: process.env.RUNCAST_E2E_URL ?? "http://127.0.0.1:8080",
    viewport: { width: 1280, height: 800 },
    colorScheme: "dark",
    launchOptions: {
      executablePath: process.env.RUNCAST_E2E_BROWSER ?? "/usr/bin/chromium",
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    },
  },
});
