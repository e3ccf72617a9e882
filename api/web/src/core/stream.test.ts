// The live connection: its states, its batches, and how it reconnects. Time and gateway are
// simulated.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { RunEvent } from "./event";
import { type Diagnosis, type EventSourceLike, FLUSH_MS, type Frame, RunStream } from "./stream";

/** Simulates the browser's EventSource, and the gateway behind it. */
class FakeSource implements EventSourceLike {
  readyState = 0;
  private listeners = new Map<string, (frame: Frame) => void>();

  constructor(readonly url: string) {}

  addEventListener(kind: string, listener: (frame: Frame) => void): void {
    this.listeners.set(kind, listener);
  }

  close(): void {
    this.readyState = 2;
  }

  send(kind: string, event: Partial<RunEvent> = {}, lastEventId = ""): void {
    this.listeners.get(kind)?.({ data: JSON.stringify({ kind, ...event }), lastEventId });
  }

  fail(readyState: number): void {
    this.readyState = readyState;
    this.send("error");
  }
}

let sources: FakeSource[];
let states: string[];
let updates: string[];
let batches: RunEvent[][];
let diagnosis: Diagnosis;
let stream: RunStream;

const source = () => sources[sources.length - 1] as FakeSource;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
  sources = [];
  states = [];
  updates = [];
  batches = [];
  diagnosis = { action: "retry", reason: "" };
  stream = new RunStream("r", {
    open: (url) => {
      const opened = new FakeSource(url);
      sources.push(opened);
      return opened;
    },
    diagnose: async () => diagnosis,
    events: (batch) => batches.push(batch),
    stateChanged: (state, detail) => states.push(detail === "" ? state : `${state}: ${detail}`),
    runUpdated: (data) => updates.push(data),
    random: () => 0,
  });
  stream.start();
});

afterEach(() => {
  stream.stop();
  vi.useRealTimers();
});

const settle = () => vi.advanceTimersByTimeAsync(0);

test("starts at the beginning, catches up, is live", () => {
  expect(source().url).toContain("after=0-0");
  source().send("open");
  source().send("ready");
  expect(states).toEqual(["catching-up", "live"]);
});

test("an update of the run is passed on at once, and is not an event", () => {
  source().send("state", { status: "lost" });
  expect(updates).toEqual(['{"kind":"state","status":"lost"}']);
  expect(batches).toEqual([]);
});

test("the first event of a quiet stream is passed on at once, the next ones in a batch", async () => {
  source().send("output", { seq: 1 }, "1-1");
  await settle();
  expect(batches.map((batch) => batch.length)).toEqual([1]);
  source().send("output", { seq: 2 }, "1-2");
  source().send("log", { seq: 3 }, "1-3");
  await settle();
  expect(batches).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(FLUSH_MS);
  expect(batches.map((batch) => batch.length)).toEqual([1, 2]);
});

test("a full batch does not wait for the timer, which a hidden tab would delay", () => {
  for (let seq = 1; seq <= 5000; seq += 1) {
    source().send("output", { seq }, `1-${seq}`);
  }
  expect(batches.map((batch) => batch.length)).toEqual([5000]);
});

test("the connection stays degraded until the next ready signal", () => {
  source().send("open");
  source().send("degraded", { what: "redis", message: "Redis is not answering" });
  source().send("degraded", { what: "postgres" });
  source().send("ready");
  expect(states.slice(1)).toEqual(["degraded: Redis is not answering", "degraded: postgres is not available", "live"]);
});

test("EventSource reconnects by itself, and a draining server is shown as such", () => {
  source().send("open");
  source().fail(0);
  source().send("open");
  source().send("closing", { reason: "deploy" });
  source().fail(0);
  source().send("open");
  expect(states).toEqual(["catching-up", "reconnecting", "catching-up", "draining: deploy", "catching-up"]);
  expect(sources).toHaveLength(1);
});

test("after a refusal it reconnects after the last event, with growing backoff", async () => {
  source().send("open");
  source().send("output", {}, "7-41");
  for (const wait of [500, 1000, 2000, 4000]) {
    const before = sources.length;
    source().fail(2);
    await vi.advanceTimersByTimeAsync(wait - 1);
    expect(sources).toHaveLength(before);
    await vi.advanceTimersByTimeAsync(1);
    expect(sources).toHaveLength(before + 1);
    expect(source().url).toContain("after=7-41");
  }
  source().send("ready");
  source().fail(2);
  await vi.advanceTimersByTimeAsync(500);
  expect(sources).toHaveLength(6);
});

test("a retry can cut the backoff short, and a stop ends it", async () => {
  source().fail(2);
  await settle();
  stream.retryNow();
  expect(sources).toHaveLength(2);
  source().fail(2);
  await settle();
  stream.stop();
  await vi.advanceTimersByTimeAsync(60_000);
  stream.retryNow();
  expect(sources).toHaveLength(2);
});

test("a connection that cannot succeed fails with the reason", async () => {
  diagnosis = { action: "stop", reason: "no such run" };
  source().fail(2);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(states).toEqual(["reconnecting", "failed: no such run"]);
  expect(sources).toHaveLength(1);
});

test("the end signal closes the connection after all events were passed on", () => {
  source().send("open");
  source().send("output", { seq: 1 }, "1-1");
  source().send("end", { status: "succeeded" }, "1-1");
  expect(source().readyState).toBe(2);
  expect(batches.flat().map((event) => event.kind)).toEqual(["output", "end"]);
  expect(states).toEqual(["catching-up", "ended"]);
});

test("a reconnect to a complete run ends the stream", async () => {
  source().send("output", {}, "1-1");
  diagnosis = { action: "end" };
  source().fail(2);
  await settle();
  expect(states[states.length - 1]).toBe("ended");
});

test("frames of a closed source are ignored", async () => {
  const old = source();
  old.fail(2);
  await vi.advanceTimersByTimeAsync(1000);
  old.send("output", { seq: 9 }, "9-9");
  await vi.advanceTimersByTimeAsync(1000);
  expect(batches).toEqual([]);
});
