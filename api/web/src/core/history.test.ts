// The window of a log: older and newer pages, other positions, lines cut by the edge of a page, and
// the way back to the live end.

import { expect, test } from "vitest";
import type { RunEvent } from "./event";
import { type EventPage, HistoryPager, MAX_WINDOW_ROWS } from "./history";
import { VariationLog } from "./log";
import type { PagePosition } from "./url";

/** A run of numbered lines that answers requests for pages as the gateway does. */
class FakeRun {
  events: RunEvent[] = [];
  requested: string[] = [];
  fails = false;
  /** Runs while a response is on its way. */
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

  get = async (_run: string, _variation: number | null, position: PagePosition, limit = 1000): Promise<EventPage> => {
    this.requested.push(JSON.stringify(position));
    if (this.fails) {
      throw new Error("no answer");
    }
    const all = [...this.events];
    const seq = (id: string) => Number(id.split("-")[1]);
    let from = 0;
    let to = all.length;
    if ("before" in position) {
      to = position.before === "end" ? to : seq(position.before) - 1;
      from = Math.max(0, to - limit);
    } else {
      from = "after" in position ? seq(position.after) : "line" in position ? position.line - 1 : 0;
      to = Math.min(to, from + limit);
    }
    await Promise.resolve();
    this.meanwhile();
    const older = from > 0 ? `7-${from + 1}` : null;
    return { events: all.slice(from, to), older, newer: `7-${to}`, more: to < all.length, ended: false };
  };
}

async function open(run: FakeRun): Promise<{ log: VariationLog; pager: HistoryPager }> {
  const log = new VariationLog(0);
  const page = await run.get("r", null, { before: "end" });
  for (const event of page.events) {
    log.appendLive(event);
  }
  log.older = page.older;
  return { log, pager: new HistoryPager("r", log, () => {}, run.get) };
}

function texts(log: VariationLog): number[] {
  return Array.from({ length: log.rows.length }, (_, at) => Number(log.rows.get(log.rows.first + at)?.line.text));
}

function through(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, at) => from + at);
}

test("older pages are prepended, each row once, until the beginning", async () => {
  const { log, pager } = await open(new FakeRun(2500));
  expect([texts(log), log.older]).toEqual([through(1501, 2500), "7-1501"]);
  await pager.loadOlder();
  expect(texts(log)).toEqual(through(501, 2500));
  await pager.loadOlder();
  await pager.loadOlder();
  expect([texts(log), log.older]).toEqual([through(1, 2500), null]);
  expect(log.rows.get(log.rows.first)?.number).toBe(log.rows.first);
});

test("the window moves to a line and back to the live end without loss or duplicates", async () => {
  const run = new FakeRun(5000);
  const { log, pager } = await open(run);
  await pager.goTo({ line: 2000 });
  expect([texts(log)[0], texts(log).at(-1), log.newer]).toEqual([1700, 2999, "7-2999"]);
  expect(log.rows.get(log.hit ?? 0)?.line.text).toBe("2000");
  // Live events are not appended to a window that ends earlier ...
  for (const event of run.print(10)) {
    log.appendLive(event);
  }
  expect(texts(log).at(-1)).toBe(2999);
  await pager.loadNewer();
  await pager.loadNewer();
  // ... and those that arrive while the last page is on its way are neither lost nor shown twice.
  run.meanwhile = () => {
    run.meanwhile = () => {};
    for (const event of run.print(5)) {
      log.appendLive(event);
    }
  };
  await pager.loadNewer();
  expect(log.newer).toBeNull();
  log.appendLive(run.print(1)[0] as RunEvent);
  expect(texts(log)).toEqual(through(1700, 5016));
});

test("a window that includes the end stays live, and any other can go back to the end", async () => {
  const run = new FakeRun(3000);
  const { log, pager } = await open(run);
  await pager.goTo({ id: "7-2990" });
  expect([log.newer, log.rows.get(log.hit ?? 0)?.line.text]).toEqual([null, "2990"]);
  await pager.goTo({ line: 10 });
  await pager.goToEnd();
  expect([texts(log), log.newer]).toEqual([through(2001, 3000), null]);
  log.appendLive(run.print(1)[0] as RunEvent);
  expect(texts(log).at(-1)).toBe(3001);
});

test("a window above its limit drops rows at its far end", async () => {
  const { log, pager } = await open(new FakeRun(MAX_WINDOW_ROWS + 3000));
  while (log.older !== null) {
    await pager.loadOlder();
  }
  expect([texts(log), log.newer]).toEqual([through(1, MAX_WINDOW_ROWS), `7-${MAX_WINDOW_ROWS}`]);
  await pager.loadNewer();
  expect([texts(log), log.older]).toEqual([through(1001, MAX_WINDOW_ROWS + 1000), "7-1001"]);
});

test("after a problem, nothing is loaded until the reader retries", async () => {
  const run = new FakeRun(3000);
  const { log, pager } = await open(run);
  run.fails = true;
  await pager.loadOlder();
  await pager.loadOlder();
  expect([pager.problem, pager.loading, run.requested.length]).toEqual(["no answer", null, 2]);
  run.fails = false;
  pager.retry();
  await pager.loadOlder();
  expect(texts(log)).toEqual(through(1001, 3000));
});

test("a line cut by the edge of a page becomes one row, and groups keep their rows", () => {
  const log = new VariationLog(0);
  const chunk = (seq: number, text: string, more: object = {}): RunEvent => ({
    kind: "output",
    text,
    id: `7-${seq}`,
    ...more,
  });
  log.append(chunk(6, "er\n"));
  log.append(chunk(7, "last\n"));
  log.prepend([
    chunk(1, "begin\n", { group: { state: "start", id: "g", title: "Group", collapsed: true } }),
    chunk(2, "inside\n"),
    chunk(3, "end\n", { group: { state: "end", id: "g" } }),
    chunk(4, "the answ"),
    chunk(5, "warning\n", { kind: "log" }),
  ]);
  const rows = Array.from({ length: log.rows.length }, (_, at) => log.rows.get(log.rows.first + at));
  expect(rows.map((row) => row?.line.text)).toEqual(["Group", "inside", "warning", "the answer", "last"]);
  expect(rows.map((row) => row?.number)).toEqual(through(log.rows.first, log.rows.end - 1));
  expect(log.chars).toBe(rows.reduce((sum, row) => sum + (row?.line.length ?? 0), 0));
  expect([log.unfoldedRows().count, rows[0]?.group?.rowCount(log.rows.end)]).toEqual([4, 1]);
});
