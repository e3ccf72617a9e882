// Watching a run: when its description is loaded, and what a refused stream leads to.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { RunWatch } from "./run_watch";

/** Responses by path. The stream is a FakeEventSource that each test drives. */
let answers: Record<string, () => Response>;
let requested: string[];
let sources: FakeEventSource[];
let signedOut: number;
let redacted: number;
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
  requested = [];
  sources = [];
  signedOut = 0;
  redacted = 0;
  vi.stubGlobal("document", Object.assign(new EventTarget(), { visibilityState: "visible" }));
  vi.stubGlobal("addEventListener", () => {});
  vi.stubGlobal("removeEventListener", () => {});
  vi.stubGlobal("EventSource", FakeEventSource);
  vi.stubGlobal("fetch", async (path: string) => {
    const [name = ""] = path.split("?");
    if (!name.endsWith("/events")) {
      requested.push(name);
    }
    return answers[name]?.() ?? Response.json({ title: "no such run" }, { status: 404 });
  });
  watch = new RunWatch("r", {
    changed: () => {},
    signedOut: () => {
      signedOut += 1;
    },
    redacted: () => {
      redacted += 1;
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

test("the description is refreshed until the run is sealed", async () => {
  await pass(4000);
  expect([watch.run?.name, requested.length]).toEqual(["n", 2]);
  answers["/v1/runs/r"] = () => run({ sealed: true });
  await pass(60_000);
  expect(requested).toHaveLength(3);
});

test("a status event and the end of the run refresh the description soon", async () => {
  await pass(0);
  sources[0]?.send("status", { status: "failed", exit_code: 1 });
  await pass(200);
  expect(requested).toHaveLength(2);
  sources[0]?.send("end", { status: "failed" });
  await pass(0);
  expect([requested.length, watch.stream.state]).toEqual([3, "ended"]);
});

test("a lost run is shown at once, and its description is refreshed", async () => {
  await pass(0);
  sources[0]?.send("state", { run: "r", status: "lost" });
  expect(watch.run?.status).toBe("lost");
  await pass(0);
  expect(requested).toHaveLength(2);
});

test("nothing of a deleted run is shown, and it is not asked for again", async () => {
  await pass(0);
  sources[0]?.send("state", { run: "r", status: "deleted" });
  sources[0]?.send("end", { status: "deleted" });
  expect([watch.run, watch.stream.state, watch.stream.detail]).toEqual([null, "failed", "this run was deleted"]);
  const before = requested.length;
  await pass(60_000);
  expect([requested.length, sources.length, watch.stream.state]).toEqual([before, 1, "failed"]);
});

test("a run that was redacted is to be watched anew", async () => {
  await pass(0);
  sources[0]?.send("state", { run: "r", status: "running" });
  expect(redacted).toBe(0);
  sources[0]?.send("state", { run: "r", status: "running", redacted: true });
  expect(redacted).toBe(1);
});

test("a run that was deleted without a stream is shown as deleted", async () => {
  answers["/v1/runs/r"] = () => Response.json({ title: "Gone" }, { status: 410 });
  await pass(10);
  expect([watch.run, watch.stream.state]).toEqual([null, "failed"]);
});

test.each([
  [401, "failed", 1],
  [403, "failed", 0],
  [404, "failed", 0],
  [410, "failed", 0],
  [503, "reconnecting", 0],
])("after a stream refused with %d, the connection is %s", async (status, state, left) => {
  await pass(0);
  answers["/v1/runs/r"] = () => Response.json({ title: "no" }, { status });
  sources[0]?.refuse();
  await pass(10);
  expect([watch.stream.state, signedOut]).toEqual([state, left]);
});

test("a final run ends when its stream answers 204; any other response is retried", async () => {
  await pass(0);
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

test("opens on the last lines and continues live after them", async () => {
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
  watch = new RunWatch("r", { changed: () => {}, signedOut: () => {}, redacted: () => {} });
  watch.start();
  await pass(10);
  expect(new URL(sources.at(-1)?.url ?? "", "http://x").searchParams.get("after")).toBe("7-9");
  const log = watch.store.log(0);
  expect([log.rows.length, log.older, watch.store.log(1).older]).toEqual([2, "7-8", "7-8"]);
});
