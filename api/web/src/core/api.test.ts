// Error responses of the gateway, and of proxies in front of it, become errors that a reader
// understands.

import { afterEach, expect, test, vi } from "vitest";
import { type ApiError, getJson } from "./api";

afterEach(() => vi.unstubAllGlobals());

async function failure(answer: () => Response | Promise<Response>): Promise<ApiError> {
  vi.stubGlobal("fetch", async () => answer());
  return getJson("/v1/x").then(
    () => expect.unreachable("this response is an error"),
    (error: ApiError) => error,
  );
}

test("an error has the text of the problem document, or else the status line", async () => {
  const limited = await failure(() =>
    Response.json({ title: "Slow down", status: 429 }, { status: 429, headers: { "Retry-After": "3" } }),
  );
  expect([limited.status, limited.message, limited.retryAfter]).toEqual([429, "Slow down", 3]);
  const proxy = await failure(() => new Response("<html>", { status: 502, statusText: "Bad Gateway" }));
  expect(proxy.message).toBe("the gateway answered 502 Bad Gateway");
});

test("no response has status 0, and a response that is not JSON is an error too", async () => {
  const none = await failure(() => Promise.reject(new TypeError("Failed to fetch")));
  expect([none.status, none.message]).toEqual([0, "the gateway cannot be reached"]);
  const page = await failure(() => new Response("<html>", { status: 200 }));
  expect(page.message).toContain("not JSON");
});
