// The state that all views share: a sign-in link is removed from the address before a route is
// read.

import { afterEach, beforeEach, expect, test, vi } from "vitest";

let address: { hash: string };
let onHashChange: () => void;

beforeEach(() => {
  vi.resetModules();
  vi.useFakeTimers();
  address = { hash: "" };
  vi.stubGlobal("location", address);
  vi.stubGlobal("history", {
    replaceState: (_state: unknown, _title: string, url: string) => {
      address.hash = url;
    },
  });
  vi.stubGlobal("addEventListener", (_kind: string, listener: () => void) => {
    onHashChange = listener;
  });
  vi.stubGlobal("matchMedia", () => ({ matches: true, addEventListener: () => {} }));
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("a page opened with a sign-in link has its code, and is at the run that it leads to", async () => {
  address.hash = "#/sign-in/c0de/runs/0190";
  const { route, signInLink } = await import("./state");
  expect(address.hash).toBe("#/runs/0190");
  expect([signInLink.value, route.value]).toEqual([{ code: "c0de" }, { page: "run", id: "0190" }]);
});

test("a sign-in link opened in the same tab replaces the one before, also with the same code", async () => {
  const { route, signInLink } = await import("./state");
  expect([signInLink.value, route.value.page]).toEqual([null, "runs"]);
  const links = [];
  for (const hash of ["#/sign-in/one/runs/0190", "#/runs/0191", "#/sign-in/one"]) {
    address.hash = hash;
    onHashChange();
    links.push(signInLink.value);
  }
  expect(links).toEqual([{ code: "one" }, { code: "one" }, { code: "one" }]);
  expect([links[0] === links[1], links[1] === links[2]]).toEqual([true, false]);
  expect([address.hash, route.value]).toEqual(["#/", { page: "runs", before: null }]);
});

test("the reason of a failed sign-in by the issuer is shown in the form", async () => {
  address.hash = "#/?sign-in=denied";
  const { signInProblem } = await import("./state");
  expect(signInProblem.value).toContain("refused the sign-in");
});
