// Values derived from the description of a run.

import { expect, test } from "vitest";
import { missingEvents, type Run, runTime, withUpdate } from "./runs";

const run: Run = {
  id: "r",
  name: "build",
  labels: {},
  status: "running",
  variations: [
    { index: 0, status: "running", exit_code: null, missing: null },
    { index: 1, status: "running", exit_code: null, missing: 3 },
  ],
  created_at: "2026-11-21T10:00:00Z",
  started_at: "2026-11-21T10:00:05Z",
  ended_at: null,
  sealed: false,
  events: 0,
  bytes: 0,
  last_id: "0-0",
};
const now = Date.parse("2026-11-21T10:01:05Z");

test("the run time is from the start to the end, or until now", () => {
  expect(runTime(run, now)).toBe(60_000);
  expect(runTime({ ...run, status: "failed", ended_at: "2026-11-21T10:00:15Z" }, now)).toBe(10_000);
  expect(runTime({ ...run, started_at: null }, now)).toBeNull();
  expect(runTime({ ...run, status: "cancelled" }, now)).toBeNull();
});

test("missing events are summed over the variations", () => {
  expect(missingEvents(run)).toBe(3);
});

test("an update changes the run it names, and is ignored if it cannot be parsed", () => {
  const lost = withUpdate(run, '{"kind":"state","run":"r","status":"lost","sealed":false}');
  expect([lost.status, lost.name]).toEqual(["lost", "build"]);
  expect(withUpdate(run, '{"run":"other","status":"lost"}')).toBe(run);
  expect(withUpdate(run, "nonsense")).toBe(run);
});
