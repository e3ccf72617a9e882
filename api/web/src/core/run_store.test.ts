// The store: events that come twice, lanes, gaps, marks, limits.

import { expect, test } from "vitest";
import type { RunEvent } from "./event";
import { gapText } from "./labels";
import { RunStore } from "./run_store";

const line = (seq: number, text: string, variation = 0, producer = "p"): RunEvent => ({
  kind: "output",
  variation,
  text: `${text}\n`,
  producer,
  seq,
  id: `1-${seq}`,
});

function texts(store: RunStore, variation = 0): string[] {
  const { rows } = store.lane(variation);
  return Array.from({ length: rows.length }, (_, at) => rows.get(rows.first + at)?.line.text ?? "");
}

test("an event that comes again is dropped, whatever its id", () => {
  const store = new RunStore();
  store.apply([line(1, "a"), line(2, "b")]);
  store.apply([{ ...line(2, "b"), id: "2-1" }, line(1, "a"), line(3, "c"), line(1, "other", 0, "q")]);
  expect(texts(store)).toEqual(["a", "b", "c", "other"]);
  expect(store.events).toBe(4);
});

test("each variation has its lane", () => {
  const store = new RunStore();
  store.apply([line(1, "zero"), line(1, "one", 1, "q")]);
  expect([texts(store, 0), texts(store, 1)]).toEqual([["zero"], ["one"]]);
});

test("the oldest rows go first, and the limit is shared by the lanes", () => {
  const store = new RunStore(10, 1000);
  store.apply(Array.from({ length: 25 }, (_, at) => line(at + 1, `${at}`)));
  expect([texts(store).length, store.lane(0).rows.first]).toEqual([10, 15]);
  store.apply([line(1, "x", 1, "q")]);
  expect(texts(store)).toEqual(["20", "21", "22", "23", "24"]);
});

test("a gap shows in every lane it may have touched and ends open lines", () => {
  const store = new RunStore();
  store.apply([line(1, "a"), line(1, "b", 1, "q"), { kind: "output", variation: 0, text: "half" }]);
  store.apply([{ kind: "gap", after: "1-2", next: "1-15", count: 12, reason: "lost" }]);
  store.apply([{ kind: "output", variation: 0, text: "rest\n" }]);
  expect(texts(store, 0)).toEqual(["a", "half", "12 events missing: lost", "rest"]);
  expect(texts(store, 1)).toEqual(["b", "12 events missing: lost"]);
});

test("a reborn stream joins on: what is sent again is dropped and the line goes on", () => {
  const store = new RunStore();
  store.apply([
    { ...line(1, ""), text: "half " },
    { kind: "gap", count: null, reason: "reborn" },
  ]);
  store.apply([{ ...line(1, ""), text: "half " }, line(2, "line")]);
  expect(texts(store)[0]).toBe("half line");
});

test("a stored gap counts as an event of its producer and stays in its lane", () => {
  const store = new RunStore();
  const gap: RunEvent = { kind: "gap", variation: 1, count: 1, bytes: 80, reason: "spool full", producer: "p", seq: 1 };
  store.apply([line(1, "a", 0, "q"), gap, gap]);
  expect(texts(store, 1)).toEqual(["1 event missing: spool full"]);
  expect(texts(store, 0)).toEqual(["a"]);
});

test("status sets the lane's state and leaves a mark", () => {
  const store = new RunStore();
  store.apply([
    { kind: "status", variation: 0, status: "running", producer: "p", seq: 1 },
    { kind: "status", variation: 0, status: "failed", exit_code: 101, producer: "p", seq: 2 },
  ]);
  const lane = store.lane(0);
  expect([lane.status, lane.exitCode, lane.signal]).toEqual(["failed", 101, null]);
  expect(texts(store)).toEqual(["status: running", "status: failed, exit code 101"]);
});

test("progress leaves no row; kinds the page does not show leave nothing", () => {
  const store = new RunStore();
  store.apply([
    { kind: "progress", label: "steps", current: 1, total: 4000, producer: "p", seq: 1 },
    { kind: "progress", label: "steps", current: 2, total: 4000, producer: "p", seq: 2 },
    { kind: "heartbeat", producer: "p", seq: 3 },
    { kind: "from-the-future", producer: "p", seq: 4 },
  ]);
  expect(texts(store)).toEqual([]);
  expect(store.lane(0).progress.get("steps")?.current).toBe(2);
});

test("what tells of a hole is never folded away", () => {
  const store = new RunStore();
  store.apply([
    { ...line(1, "x"), group: { state: "start", id: "g", title: "G", collapsed: true } },
    line(2, "cut off"),
    { kind: "gap", count: 2, reason: "lost", variation: 0 },
    line(5, "after"),
  ]);
  const lane = store.lane(0);
  const shown = lane.shown();
  const seen = Array.from({ length: shown.count }, (_, place) => lane.rows.get(shown.rowAt(place))?.line.text);
  expect(seen).toEqual(["G", "cut off", "2 events missing: lost", "after"]);
});

test("a gap without a count says so", () => {
  expect(gapText({ kind: "gap", count: null, reason: "lost" })).toBe("events may be missing here: lost");
  expect(gapText({ kind: "gap", count: 2000, reason: "cap" })).toContain("2,000 events left out here");
});
