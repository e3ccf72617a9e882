// The store: duplicate events, logs, gaps, notices, limits.

import { expect, test } from "vitest";
import type { RunEvent } from "./event";
import { gapLabel } from "./labels";
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
  const { rows } = store.log(variation);
  return Array.from({ length: rows.length }, (_, at) => rows.get(rows.first + at)?.line.text ?? "");
}

test("a duplicate event is dropped, whatever its id", () => {
  const store = new RunStore();
  store.apply([line(1, "a"), line(2, "b")]);
  store.apply([{ ...line(2, "b"), id: "2-1" }, line(1, "a"), line(3, "c"), line(1, "other", 0, "q")]);
  expect(texts(store)).toEqual(["a", "b", "c", "other"]);
  expect(store.events).toBe(4);
});

test("each variation has its own log", () => {
  const store = new RunStore();
  store.apply([line(1, "zero"), line(1, "one", 1, "q")]);
  expect([texts(store, 0), texts(store, 1)]).toEqual([["zero"], ["one"]]);
});

test("the oldest rows are dropped first, and the logs share the limit", () => {
  const store = new RunStore(10, 1000);
  store.apply(Array.from({ length: 25 }, (_, at) => line(at + 1, `${at}`)));
  expect([texts(store).length, store.log(0).rows.first]).toEqual([10, 15]);
  store.apply([line(1, "x", 1, "q")]);
  expect(texts(store)).toEqual(["20", "21", "22", "23", "24"]);
});

test("a gap appears in every log that may have lost events, and ends open lines", () => {
  const store = new RunStore();
  store.apply([line(1, "a"), line(1, "b", 1, "q"), { kind: "output", variation: 0, text: "half" }]);
  store.apply([{ kind: "gap", after: "1-2", next: "1-15", count: 12, reason: "lost" }]);
  store.apply([{ kind: "output", variation: 0, text: "rest\n" }]);
  expect(texts(store, 0)).toEqual(["a", "half", "12 events missing: lost", "rest"]);
  expect(texts(store, 1)).toEqual(["b", "12 events missing: lost"]);
});

test("after a rebuilt stream, duplicates are dropped and the open line continues", () => {
  const store = new RunStore();
  store.apply([
    { ...line(1, ""), text: "half " },
    { kind: "gap", count: null, reason: "reborn" },
  ]);
  store.apply([{ ...line(1, ""), text: "half " }, line(2, "line")]);
  expect(texts(store)[0]).toBe("half line");
});

test("a stored gap counts as an event of its producer and appears in its own log only", () => {
  const store = new RunStore();
  const gap: RunEvent = { kind: "gap", variation: 1, count: 1, bytes: 80, reason: "spool full", producer: "p", seq: 1 };
  store.apply([line(1, "a", 0, "q"), gap, gap]);
  expect(texts(store, 1)).toEqual(["1 event missing: spool full"]);
  expect(texts(store, 0)).toEqual(["a"]);
});

test("a status event sets the state of the log and adds a notice", () => {
  const store = new RunStore();
  store.apply([
    { kind: "status", variation: 0, status: "running", producer: "p", seq: 1 },
    { kind: "status", variation: 0, status: "failed", exit_code: 101, producer: "p", seq: 2 },
  ]);
  const log = store.log(0);
  expect([log.status, log.exitCode, log.signal]).toEqual(["failed", 101, null]);
  expect(texts(store)).toEqual(["status: running", "status: failed, exit code 101"]);
});

test("progress adds no row, and unknown kinds are ignored", () => {
  const store = new RunStore();
  store.apply([
    { kind: "progress", label: "steps", current: 1, total: 4000, producer: "p", seq: 1 },
    { kind: "progress", label: "steps", current: 2, total: 4000, producer: "p", seq: 2 },
    { kind: "heartbeat", producer: "p", seq: 3 },
    { kind: "from-the-future", producer: "p", seq: 4 },
  ]);
  expect(texts(store)).toEqual([]);
  expect(store.log(0).progress.get("steps")?.current).toBe(2);
});

test("the row of a gap is never hidden in a folded group", () => {
  const store = new RunStore();
  store.apply([
    { ...line(1, "x"), group: { state: "start", id: "g", title: "G", collapsed: true } },
    line(2, "cut off"),
    { kind: "gap", count: 2, reason: "lost", variation: 0 },
    line(5, "after"),
  ]);
  const log = store.log(0);
  const unfolded = log.unfoldedRows();
  const seen = Array.from({ length: unfolded.count }, (_, index) => log.rows.get(unfolded.rowAt(index))?.line.text);
  expect(seen).toEqual(["G", "cut off", "2 events missing: lost", "after"]);
});

test("the label of a gap says whether the number of missing events is known", () => {
  expect(gapLabel({ kind: "gap", count: null, reason: "lost" })).toBe("events may be missing here: lost");
  expect(gapLabel({ kind: "gap", count: 2000, reason: "cap" })).toContain("2,000 events omitted here");
});
