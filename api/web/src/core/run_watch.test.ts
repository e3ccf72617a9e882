// A watched run: when its description is asked for, and what a refused stream means.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { RunWatch } from "./run_watch";

/** Answers by path; the stream itself is an EventSource that a test drives. */
let answers: Record<string, () => Response>;
let asked: string[];
let sources: FakeEventSource[];
let signedOut: number;
let watch: RunWatch;

class FakeEventSource {
  readyState = 0;
  listeners = new Map<string, (frame: { data: string; lastEventId: string }) => void>();
  constructor(readonly url: string) {
    sources.push(this);
  }
  addEventListener(kind: string, listener: (frame: { data: string; lastEventId: string }) => void): void {
    this.listeners.set(kind, listener);
  }
  close(): void {
    this.readyState = 2;
  }
  send(kind: string, data: object = {}): void {
    this.listeners.get(kind)?.({ data: JSON.stringify({ kind, ...data }), lastEventId: "" });
  }
  refuse(): void {
    this.readyState = 2;
    this.send("error");
  }
}

const run = (more: object = {}) => Response.json({ id: "r", name: "n", status: "running", sealed: false, ...more });

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
  answers = { "/v1/runs/r": () => run() };
  asked = [];
  sources = [];
  signedOut = 0;
  vi.stubGlobal("document", Object.assign(new EventTarget(), { visibilityState: "visible" }));
  vi.stubGlobal("addEventListener", () => {});
  vi.stubGlobal("removeEventListener", () => {});
  vi.stubGlobal("EventSource", FakeEventSource);
  vi.stubGlobal("fetch", async (path: string) => {
    const [name = ""] = path.split("?");
    if (!name.endsWith("/events")) {
      asked.push(name);
    }
    return answers[name]?.() ?? Response.json({ title: "no such run" }, { status: 404 });
  });
  watch = new RunWatch("r", {
    changed: () => {},
    signedOut: () => {
      signedOut += 1;
    },
  });
  watch.start();
});

afterEach(() => {
  watch.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

test("asks for the description until the run is sealed", async () => {
  await pass(4000);
  expect([watch.run?.name, asked.length]).toEqual(["n", 2]);
  answers["/v1/runs/r"] = () => run({ sealed: true });
  await pass(60_000);
  expect(asked).toHaveLength(3);
});

test("a status event and the end ask for it soon", async () => {
  await pass(0);
  sources[0]?.send("status", { status: "failed", exit_code: 1 });
  await pass(200);
  expect(asked).toHaveLength(2);
  sources[0]?.send("end", { status: "failed" });
  await pass(0);
  expect([asked.length, watch.stream.state]).toEqual([3, "ended"]);
});

test("a lost run is shown at once, and then asked for", async () => {
  await pass(0);
  sources[0]?.send("state", { run: "r", status: "lost" });
  expect(watch.run?.status).toBe("lost");
  await pass(0);
  expect(asked).toHaveLength(2);
});

test.each([
  [401, "failed", 1],
  [403, "failed", 0],
  [404, "failed", 0],
  [503, "reconnecting", 0],
])("a stream refused because of %d: %s", async (status, state, left) => {
  await pass(0);
  answers["/v1/runs/r"] = () => Response.json({ title: "no" }, { status });
  sources[0]?.refuse();
  await pass(10);
  expect([watch.stream.state, signedOut]).toEqual([state, left]);
});

test("204 for a run that is over is its end; any other answer is tried again", async () => {
  answers["/v1/runs/r"] = () => run({ status: "succeeded", sealed: true });
  answers["/v1/runs/r/stream"] = () => new Response("", { status: 200 });
  sources[0]?.refuse();
  await pass(10);
  expect(watch.stream.state).toBe("reconnecting");
  answers["/v1/runs/r/stream"] = () => new Response(null, { status: 204 });
  await pass(1000);
  sources[1]?.refuse();
  await pass(10);
  expect(watch.stream.state).toBe("ended");
});

test("opens on the last lines and goes on live behind them", async () => {
  watch.stop();
  const line = (seq: number) => ({
    kind: "output",
    variation: 0,
    text: `${seq}\n`,
    id: `7-${seq}`,
    producer: "p",
    seq,
  });
  answers["/v1/runs/r/events"] = () =>
    Response.json({ events: [line(8), line(9)], older: "7-8", newer: "7-9", more: false, ended: false });
  watch = new RunWatch("r", { changed: () => {}, signedOut: () => {} });
  watch.start();
  await pass(10);
  expect(new URL(sources.at(-1)?.url ?? "", "http://x").searchParams.get("after")).toBe("7-9");
  const lane = watch.store.lane(0);
  expect([lane.rows.length, lane.older, watch.store.lane(1).older]).toEqual([2, "7-8", "7-8"]);
});
