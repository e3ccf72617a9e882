// The one-time sign-in link: its code leaves the address at once, and is sent only without a
// session.

import { afterEach, expect, test, vi } from "vitest";
import { openSession, takeSignInCode } from "./sign_in_link";

afterEach(() => vi.unstubAllGlobals());

/** A tab at an address; `addresses` are those that its history has kept. */
function tabAt(hash: string) {
  const addresses = [hash];
  return {
    location: {
      get hash() {
        return addresses.at(-1) ?? "";
      },
    },
    history: {
      replaceState: (_state: unknown, _title: string, url?: string | URL | null) => {
        addresses[addresses.length - 1] = String(url);
      },
    },
    addresses,
  };
}

/** A gateway that answers each request by its method. */
function gateway(responses: Record<string, () => Response>) {
  const requests: { method: string; path: string; body: unknown }[] = [];
  vi.stubGlobal("localStorage", { getItem: () => "browser", setItem: () => {} });
  vi.stubGlobal("fetch", async (path: string, init: RequestInit) => {
    const method = init.method ?? "GET";
    requests.push({ method, path, body: init.body === undefined ? null : JSON.parse(String(init.body)) });
    return responses[method]?.() ?? Response.error();
  });
  return requests;
}

const signedOut = () => Response.json({ title: "Unauthorized" }, { status: 401 });
const admin = () => Response.json({ name: "admin", scopes: ["admin"] });

test.each([
  ["#/sign-in/c0de", "c0de", "#/"],
  ["#/sign-in/c0de/", "c0de", "#/"],
  ["#/sign-in/a%2Fb", "a/b", "#/"],
  ["#/sign-in/c0de/runs/0190-abc", "c0de", "#/runs/0190-abc"],
  ["#/sign-in/c0de/runs/a%2Fb", "c0de", "#/runs/a%2Fb"],
  ["#/sign-in/c0de/elsewhere", "c0de", "#/"],
  ["#/sign-in/c0de?before=0190", "c0de", "#/"],
])("the code of %s leaves the address at once", (hash, code, target) => {
  const tab = tabAt(hash);
  expect(takeSignInCode(tab.location, tab.history)).toBe(code);
  expect(tab.addresses).toEqual([target]);
});

test.each(["", "#/", "#/sign-in", "#/sign-in/", "#/runs/sign-in", "#/?sign-in=denied"])("%j has no code", (hash) => {
  const tab = tabAt(hash);
  expect(takeSignInCode(tab.location, tab.history)).toBeNull();
  expect(tab.addresses).toEqual([hash]);
});

test("without a session, the code signs this browser in", async () => {
  const requests = gateway({ GET: signedOut, POST: admin });
  expect(await openSession("c0de")).toEqual({ session: { name: "admin", scopes: ["admin"] }, problem: "" });
  expect(requests).toEqual([
    { method: "GET", path: "/v1/session", body: null },
    { method: "POST", path: "/v1/session", body: { code: "c0de", client: "browser" } },
  ]);
});

test("with a session, the code is not sent", async () => {
  const requests = gateway({ GET: admin, POST: signedOut });
  expect((await openSession("c0de")).session?.name).toBe("admin");
  expect(requests.map(({ method }) => method)).toEqual(["GET"]);
});

test("without a code, nothing but the session is requested", async () => {
  const requests = gateway({ GET: signedOut, POST: admin });
  expect(await openSession(null)).toEqual({ session: null, problem: "" });
  expect(requests).toHaveLength(1);
});

test.each([400, 401, 422])("a code refused with %d leads to the form, with the reason", async (status) => {
  gateway({ GET: signedOut, POST: () => Response.json({ title: "no" }, { status }) });
  expect(await openSession("c0de")).toEqual({
    session: null,
    problem: "This sign-in link has expired or was already used. Sign in with a token or a password.",
  });
});

test("a limit or an outage is not taken for a used link", async () => {
  for (const [status, text] of [
    [429, "Too many attempts"],
    [503, "not available at the moment"],
  ] as const) {
    gateway({ GET: signedOut, POST: () => Response.json({ title: "no" }, { status }) });
    expect((await openSession("c0de")).problem).toContain(text);
  }
});

test("a gateway that cannot be reached leaves the code unused", async () => {
  const requests = gateway({
    GET: () => {
      throw new TypeError("Failed to fetch");
    },
  });
  await expect(openSession("c0de")).rejects.toThrow("cannot be reached");
  expect(requests.map(({ method }) => method)).toEqual(["GET"]);
});
