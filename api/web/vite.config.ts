// How the page is built, served while it is worked on, and tested. The gateway sends `default-src 'self'`, so nothing may
// be inlined: no data: URLs, no inline script. JSX needs no plugin: `jsxImportSource` comes from tsconfig.json.
import { defineConfig } from "vitest/config";

declare const process: { env: { RUNCAST_URL?: string } };

export default defineConfig({
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    // `npm run dev` shows the runs of a gateway that runs elsewhere.
    proxy: { "/v1": process.env.RUNCAST_URL ?? "http://127.0.0.1:8080" },
  },
  test: {
    environment: "node",
    include: ["src/**/*.test.ts"],
  },
});
