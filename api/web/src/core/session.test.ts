// Signing in: where credentials go, and which text is shown when they are refused.

import { afterEach, expect, test, vi } from "vitest";
import { ApiError } from "./api";
import { currentSession, getIssuer, issuerError, issuerHref, signIn, signInError } from "./session";

afterEach(() => vi.unstubAllGlobals());

function gateway(status: number, body: unknown, headers: Record<string, string> = {}) {
  const fetched = vi.fn(async (_path: string, _init: RequestInit) => Response.json(body, { status, headers }));
  vi.stubGlobal("fetch", fetched);
  return fetched;
}

test("401 means signed out; anything else is an error", async () => {
  gateway(401, { title: "Unauthorized" });
  expect(await currentSession()).toBeNull();
  gateway(503, { title: "Unavailable", detail: "Postgres is not answering" });
  await expect(currentSession()).rejects.toThrow("Postgres is not answering");
});

test("the token is sent in the body only", async () => {
  vi.stubGlobal("localStorage", undefined);
  const fetched = gateway(200, { name: "admin", scopes: ["admin"] });
  expect((await signIn({ token: "s3cret" })).name).toBe("admin");
  const [path, init] = fetched.mock.calls[0] ?? [];
  expect(path).toBe("/v1/session");
  expect(init).toMatchObject({ method: "POST", body: '{"token":"s3cret"}', credentials: "same-origin" });
});

test("a browser signs in under one stored name of its own", async () => {
  const stored = new Map<string, string>();
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => stored.set(key, value),
  });
  const fetched = gateway(200, { name: "ada", scopes: [] });
  await signIn({ user: "ada", password: "correct horse" });
  await signIn({ user: "ada", password: "correct horse" });
  const bodies = fetched.mock.calls.map(([, init]) => JSON.parse(String(init.body)));
  expect(bodies[0]).toMatchObject({ user: "ada", password: "correct horse" });
  expect(bodies[0].client).toMatch(/^[0-9a-f]{32}$/);
  expect(bodies[1].client).toBe(bodies[0].client);
  expect([...stored.values()]).toEqual([bodies[0].client]);
});

test("each failure of a sign-in has its own text", async () => {
  expect(signInError(new ApiError(401, ""), "token")).toContain("not valid");
  expect(signInError(new ApiError(401, ""), "password")).toContain("name or the password");
  expect(signInError(new ApiError(0, ""), "token")).toContain("cannot be reached");
  expect(signInError(new ApiError(429, "", 7), "token")).toContain("7 s");
  expect(signInError(new ApiError(500, "broken"), "token")).toContain("broken");
  expect(signInError(new ApiError(503, ""), "password")).toContain("moment");
});

test("the issuer is the one that the gateway is configured with, if any", async () => {
  gateway(200, {});
  expect(await getIssuer()).toBeNull();
  gateway(200, { oidc: { name: "Example" } });
  expect(await getIssuer()).toEqual({ name: "Example" });
});

test("the issuer sends the browser back to the page it came from", () => {
  vi.stubGlobal("localStorage", { getItem: () => "browser", setItem: () => {} });
  const at = (hash: string) => new URL(issuerHref({ pathname: "/", search: "", hash }), "http://here").searchParams;
  expect(at("#/runs/a%20b?x=1").get("return_to")).toBe("/#/runs/a%20b?x=1");
  expect(at("").get("client")).toBe("browser");
  vi.stubGlobal("localStorage", undefined);
  expect(at("").has("client")).toBe(false);
});

test("a refusal of the issuer is shown in fixed texts, never in that of the URL", () => {
  expect(issuerError(null)).toBe("");
  expect(issuerError("unknown")).toContain("administrator");
  expect(issuerError("<b>whatever</b>")).toBe(issuerError("unproven"));
});
