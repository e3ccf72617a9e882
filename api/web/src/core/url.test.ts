// URLs: the page parses its own, and builds those of the gateway.

import { expect, test } from "vitest";
import {
  eventsPath,
  parseHash,
  runHash,
  runsHash,
  runsPath,
  searchPath,
  shortId,
  signInFailure,
  streamPath,
} from "./url";

test("parses its own URLs", () => {
  expect(parseHash(runHash("0190-abc"))).toEqual({ page: "run", id: "0190-abc" });
  expect(parseHash(runHash("a/b?c"))).toEqual({ page: "run", id: "a/b?c" });
  expect(parseHash(runsHash())).toEqual({ page: "runs", before: null });
  expect(parseHash(runsHash("0190"))).toEqual({ page: "runs", before: "0190" });
});

test.each(["", "#", "#/nothing", "#/runs/", "#/runs/a/b"])("%j leads to the list of runs", (hash) => {
  expect(parseHash(hash).page).toBe("runs");
});

test("an invalid percent-escape is kept as it is", () => {
  expect(parseHash("#/runs/%zz")).toEqual({ page: "run", id: "%zz" });
});

test("reads the reason of a failed sign-in from the hash", () => {
  expect(signInFailure("#/?sign-in=denied")).toBe("denied");
  expect(signInFailure("#/?before=0190")).toBeNull();
  expect(signInFailure("")).toBeNull();
});

test("builds the URLs of the gateway", () => {
  expect(streamPath("r", "7-3")).toBe(
    "/v1/runs/r/stream?channel=output&channel=log&channel=status&channel=progress&channel=heartbeat&after=7-3",
  );
  expect(runsPath(50, null)).toBe("/v1/runs?limit=50");
  expect(runsPath(50, "x y")).toBe("/v1/runs?limit=50&before=x%20y");
  expect(eventsPath("r", 2, { before: "7-3" }, 9)).toBe(
    "/v1/runs/r/events?channel=output:2&channel=log:2&channel=status:2&limit=9&before=7-3",
  );
  expect(eventsPath("r", null, { line: 5 }, 9)).toContain("channel=heartbeat&limit=9&line=5");
  expect(searchPath("r", { text: "a+b", regex: true, ignoreCase: false }, "end", 9)).toBe(
    "/v1/runs/r/search?regex=a%2Bb&ignore_case=false&before=end&limit=9",
  );
  expect(shortId("01990000-0000-7000-8000-0123456789ab")).toBe("456789ab");
});
