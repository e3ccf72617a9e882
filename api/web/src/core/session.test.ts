// Signing in: where the token goes, and what is said when it is refused.

import { afterEach, expect, test, vi } from "vitest";
import { ApiError } from "./api";
import { currentSession, signIn, signInError } from "./session";

afterEach(() => vi.unstubAllGlobals());

function gateway(status: number, body: unknown, headers: Record<string, string> = {}) {
  const asked = vi.fn(async (_path: string, _init: RequestInit) => Response.json(body, { status, headers }));
  vi.stubGlobal("fetch", asked);
  return asked;
}

test("401 means signed out; anything else is an error", async () => {
  gateway(401, { title: "Unauthorized" });
  expect(await currentSession()).toBeNull();
  gateway(503, { title: "Unavailable", detail: "Postgres is not answering" });
  await expect(currentSession()).rejects.toThrow("Postgres is not answering");
});

test("the token goes in the body, and only there", async () => {
  const asked = gateway(200, { name: "admin", scopes: ["admin"] });
  expect((await signIn("s3cret")).name).toBe("admin");
  const [path, init] = asked.mock.calls[0] ?? [];
  expect(path).toBe("/v1/session");
  expect(init).toMatchObject({ method: "POST", body: '{"token":"s3cret"}', credentials: "same-origin" });
});

test("says what went wrong", async () => {
  expect(signInError(new ApiError(401, ""))).toContain("not accepted");
  expect(signInError(new ApiError(0, ""))).toContain("cannot be reached");
  expect(signInError(new ApiError(429, "", 7))).toContain("7 s");
  expect(signInError(new ApiError(500, "broken"))).toContain("broken");
});
