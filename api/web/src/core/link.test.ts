// Addresses: what is spelled is read back.

import { expect, test } from "vitest";
import { historyPath, parseHash, runHash, runsHash, runsPath, shortId, streamPath } from "./link";

test("reads its own addresses back", () => {
  expect(parseHash(runHash("0190-abc"))).toEqual({ page: "run", id: "0190-abc" });
  expect(parseHash(runHash("a/b?c"))).toEqual({ page: "run", id: "a/b?c" });
  expect(parseHash(runsHash())).toEqual({ page: "runs", before: null });
  expect(parseHash(runsHash("0190"))).toEqual({ page: "runs", before: "0190" });
});

test.each(["", "#", "#/nothing", "#/runs/", "#/runs/a/b"])("%j is the list", (hash) => {
  expect(parseHash(hash).page).toBe("runs");
});

test("a broken escape is taken as it stands", () => {
  expect(parseHash("#/runs/%zz")).toEqual({ page: "run", id: "%zz" });
});

test("spells the gateway's addresses", () => {
  expect(streamPath("r", "7-3")).toBe(
    "/v1/runs/r/stream?channel=output&channel=log&channel=status&channel=progress&channel=heartbeat&after=7-3",
  );
  expect(runsPath(50, null)).toBe("/v1/runs?limit=50");
  expect(runsPath(50, "x y")).toBe("/v1/runs?limit=50&before=x%20y");
  expect(historyPath("r", 2)).toBe("/v1/runs/r/events?channel=output:2&channel=log:2");
  expect(shortId("01990000-0000-7000-8000-0123456789ab")).toBe("456789ab");
});
