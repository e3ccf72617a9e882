// Signing in: where the token goes, and what is said when it is refused.

import { afterEach, expect, test, vi } from "vitest";
import { ApiError } from "./api";
import { currentSession, issuer, issuerError, issuerHref, signIn, signInError } from "./session";

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
  vi.stubGlobal("localStorage", undefined);
  const asked = gateway(200, { name: "admin", scopes: ["admin"] });
  expect((await signIn({ token: "s3cret" })).name).toBe("admin");
  const [path, init] = asked.mock.calls[0] ?? [];
  expect(path).toBe("/v1/session");
  expect(init).toMatchObject({ method: "POST", body: '{"token":"s3cret"}', credentials: "same-origin" });
});

test("a browser signs in under one name of its own", async () => {
  const kept = new Map<string, string>();
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => kept.set(key, value),
  });
  const asked = gateway(200, { name: "ada", scopes: [] });
  await signIn({ user: "ada", password: "correct horse" });
  await signIn({ user: "ada", password: "correct horse" });
  const bodies = asked.mock.calls.map(([, init]) => JSON.parse(String(init.body)));
  expect(bodies[0]).toMatchObject({ user: "ada", password: "correct horse" });
  expect(bodies[0].client).toMatch(/^[0-9a-f]{32}$/);
  expect(bodies[1].client).toBe(bodies[0].client);
  expect([...kept.values()]).toEqual([bodies[0].client]);
});

test("says what went wrong", async () => {
  expect(signInError(new ApiError(401, ""), "token")).toContain("not accepted");
  expect(signInError(new ApiError(401, ""), "password")).toContain("name or the password");
  expect(signInError(new ApiError(0, ""), "token")).toContain("cannot be reached");
  expect(signInError(new ApiError(429, "", 7), "token")).toContain("7 s");
  expect(signInError(new ApiError(500, "broken"), "token")).toContain("broken");
  expect(signInError(new ApiError(503, ""), "password")).toContain("moment");
});

test("an issuer is offered where the gateway has one", async () => {
  gateway(200, {});
  expect(await issuer()).toBeNull();
  gateway(200, { oidc: { name: "Example" } });
  expect(await issuer()).toEqual({ name: "Example" });
});

test("one comes back from the issuer to what was shown", () => {
  vi.stubGlobal("localStorage", { getItem: () => "browser", setItem: () => {} });
  const at = (hash: string) => new URL(issuerHref({ pathname: "/", search: "", hash }), "http://here").searchParams;
  expect(at("#/runs/a%20b?x=1").get("return_to")).toBe("/#/runs/a%20b?x=1");
  expect(at("").get("client")).toBe("browser");
  vi.stubGlobal("localStorage", undefined);
  expect(at("").has("client")).toBe(false);
});

test("says why the issuer did not let one in, in words of its own", () => {
  expect(issuerError(null)).toBe("");
  expect(issuerError("unknown")).toContain("administrator");
  expect(issuerError("<b>whatever</b>")).toBe(issuerError("unproven"));
});
