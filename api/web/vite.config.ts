// Builds, serves (for development) and tests the page. The gateway sends `default-src 'self'`, so
// nothing may be inlined: no data: URLs, no inline scripts. JSX needs no plugin, because
// tsconfig.json sets `jsxImportSource`.
import { defineConfig } from "vitest/config";

declare const process: { env: { RUNCAST_URL?: string } };

export default defineConfig({
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    // `npm run dev` uses the gateway at RUNCAST_URL.
    proxy: { "/v1": process.env.RUNCAST_URL ?? "http://127.0.0.1:7070" },
  },
  test: {
    environment: "node",
    include: ["src/**/*.test.ts"],
  },
});
