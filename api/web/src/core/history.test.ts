// The window of a variation: older and newer pages, other places, the seam of pages, and the way back to the live end.

import { expect, test } from "vitest";
import type { RunEvent } from "./event";
import { type EventPage, Past, WINDOW_ROWS } from "./history";
import { Lane } from "./log";
import type { Place } from "./url";

/** A run of numbered lines that is asked for pages as the gateway is. */
class FakeRun {
  events: RunEvent[] = [];
  asked: string[] = [];
  fails = false;
  /** Called while an answer is on its way. */
  meanwhile = () => {};

  constructor(count: number) {
    this.print(count);
  }

  print(count: number): RunEvent[] {
    const added = Array.from({ length: count }, (_, at) => this.line(this.events.length + at + 1));
    this.events.push(...added);
    return added;
  }

  line(seq: number): RunEvent {
    return { kind: "output", variation: 0, text: `${seq}\n`, id: `7-${seq}`, producer: "p", seq };
  }

  get = async (_run: string, _variation: number | null, place: Place, limit = 1000): Promise<EventPage> => {
    this.asked.push(JSON.stringify(place));
    if (this.fails) {
      throw new Error("no answer");
    }
    const all = [...this.events];
    const seq = (id: string) => Number(id.split("-")[1]);
    let from = 0;
    let to = all.length;
    if ("before" in place) {
      to = place.before === "end" ? to : seq(place.before) - 1;
      from = Math.max(0, to - limit);
    } else {
      from = "after" in place ? seq(place.after) : "line" in place ? place.line - 1 : 0;
      to = Math.min(to, from + limit);
    }
    await Promise.resolve();
    this.meanwhile();
    const older = from > 0 ? `7-${from + 1}` : null;
    return { events: all.slice(from, to), older, newer: `7-${to}`, more: to < all.length, ended: false };
  };
}

async function opened(run: FakeRun): Promise<{ lane: Lane; past: Past }> {
  const lane = new Lane(0);
  const page = await run.get("r", null, { before: "end" });
  for (const event of page.events) {
    lane.live(event);
  }
  lane.older = page.older;
  return { lane, past: new Past("r", lane, () => {}, run.get) };
}

function texts(lane: Lane): number[] {
  return Array.from({ length: lane.rows.length }, (_, at) => Number(lane.rows.get(lane.rows.first + at)?.line.text));
}

function through(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, at) => from + at);
}

test("older pages come in front, each row once, until the beginning", async () => {
  const { lane, past } = await opened(new FakeRun(2500));
  expect([texts(lane), lane.older]).toEqual([through(1501, 2500), "7-1501"]);
  await past.older();
  expect(texts(lane)).toEqual(through(501, 2500));
  await past.older();
  await past.older();
  expect([texts(lane), lane.older]).toEqual([through(1, 2500), null]);
  expect(lane.rows.get(lane.rows.first)?.number).toBe(lane.rows.first);
});

test("the window moves to a line and back to the live end without a seam", async () => {
  const run = new FakeRun(5000);
  const { lane, past } = await opened(run);
  await past.show({ line: 2000 });
  expect([texts(lane)[0], texts(lane).at(-1), lane.newer]).toEqual([1700, 2999, "7-2999"]);
  expect(lane.rows.get(lane.hit ?? 0)?.line.text).toBe("2000");
  // What comes meanwhile is not put where it does not belong ...
  for (const event of run.print(10)) {
    lane.live(event);
  }
  expect(texts(lane).at(-1)).toBe(2999);
  await past.newer();
  await past.newer();
  // ... and what comes while the last page is on its way is neither lost nor shown twice.
  run.meanwhile = () => {
    run.meanwhile = () => {};
    for (const event of run.print(5)) {
      lane.live(event);
    }
  };
  await past.newer();
  expect(lane.newer).toBeNull();
  lane.live(run.print(1)[0] as RunEvent);
  expect(texts(lane)).toEqual(through(1700, 5016));
});

test("a place at the end stays live, and the end is found from anywhere", async () => {
  const run = new FakeRun(3000);
  const { lane, past } = await opened(run);
  await past.show({ id: "7-2990" });
  expect([lane.newer, lane.rows.get(lane.hit ?? 0)?.line.text]).toEqual([null, "2990"]);
  await past.show({ line: 10 });
  await past.end();
  expect([texts(lane), lane.newer]).toEqual([through(2001, 3000), null]);
  lane.live(run.print(1)[0] as RunEvent);
  expect(texts(lane).at(-1)).toBe(3001);
});

test("a window that has grown too large drops its far end", async () => {
  const { lane, past } = await opened(new FakeRun(WINDOW_ROWS + 3000));
  while (lane.older !== null) {
    await past.older();
  }
  expect([texts(lane), lane.newer]).toEqual([through(1, WINDOW_ROWS), `7-${WINDOW_ROWS}`]);
  await past.newer();
  expect([texts(lane), lane.older]).toEqual([through(1001, WINDOW_ROWS + 1000), "7-1001"]);
});

test("a problem is told, and asked about again only by the reader", async () => {
  const run = new FakeRun(3000);
  const { lane, past } = await opened(run);
  run.fails = true;
  await past.older();
  await past.older();
  expect([past.problem, past.loading, run.asked.length]).toEqual(["no answer", null, 2]);
  run.fails = false;
  past.retry();
  await past.older();
  expect(texts(lane)).toEqual(through(1001, 3000));
});

test("a line that the edge of a page has cut is one row, and groups keep their rows", () => {
  const lane = new Lane(0);
  const chunk = (seq: number, text: string, more: object = {}): RunEvent => ({
    kind: "output",
    text,
    id: `7-${seq}`,
    ...more,
  });
  lane.take(chunk(6, "er\n"));
  lane.take(chunk(7, "last\n"));
  lane.prepend([
    chunk(1, "begin\n", { group: { state: "start", id: "g", title: "Group", collapsed: true } }),
    chunk(2, "inside\n"),
    chunk(3, "end\n", { group: { state: "end", id: "g" } }),
    chunk(4, "the answ"),
    chunk(5, "warning\n", { kind: "log" }),
  ]);
  const rows = Array.from({ length: lane.rows.length }, (_, at) => lane.rows.get(lane.rows.first + at));
  expect(rows.map((row) => row?.line.text)).toEqual(["Group", "inside", "warning", "the answer", "last"]);
  expect(rows.map((row) => row?.number)).toEqual(through(lane.rows.first, lane.rows.end - 1));
  expect(lane.chars).toBe(rows.reduce((sum, row) => sum + (row?.line.length ?? 0), 0));
  expect([lane.shown().count, rows[0]?.group?.rows(lane.rows.end)]).toEqual([4, 1]);
});
