// Rows of a variation: chunks joined into lines, redrawn lines, split characters, limits.

import { expect, test } from "vitest";
import type { RunEvent } from "./event";
import { Lane } from "./lane";
import { MAX_COLUMNS } from "./line";

const output = (text: string): RunEvent => ({ kind: "output", text, time: 1 });
const log = (text: string): RunEvent => ({ kind: "log", stream: "stderr", text, time: 2 });

function rows(lane: Lane): string[] {
  const texts: string[] = [];
  for (let at = lane.rows.first; at < lane.rows.end; at += 1) {
    const row = lane.rows.get(at);
    texts.push(`${row?.source === "stdout" ? "" : `${row?.source}:`}${row?.line.text}`);
  }
  return texts;
}

function laneOf(...events: RunEvent[]): Lane {
  const lane = new Lane(0);
  for (const event of events) {
    lane.text(event);
  }
  return lane;
}

test("joins partial chunks until the newline, and keeps empty lines", () => {
  expect(rows(laneOf(output("one "), output("line\n\ntwo"), output("\n")))).toEqual(["one line", "", "two"]);
});

test("an open line goes on in its row though the other stream came in between", () => {
  expect(rows(laneOf(output("down"), log("warning\n"), output("load\nnext\n")))).toEqual([
    "download",
    "stderr:warning",
    "next",
  ]);
});

test("a carriage return redraws the line, CR LF ends it", () => {
  const lane = laneOf(output("10%"), output("\r20%"), output("\r\x1b[K5%"), output("\r\nend\r\n"));
  expect(rows(lane)).toEqual(["5%", "end"]);
  expect(lane.chars).toBe(5);
});

test("answers that are written at the same time are joined by their names, however many there were", () => {
  const lane = new Lane(0);
  const answer = (stream: string, text: string): RunEvent => ({ kind: "output", stream, text, time: 3 });
  for (const [stream, text] of [
    ["one", "a"],
    ["two", "x"],
    ["one", "b\n"],
    ["two", "y\n"],
  ] as const) {
    lane.text(answer(stream, text));
  }
  expect(rows(lane)).toEqual(["ab", "xy"]);
  for (let i = 0; i < 1000; i += 1) {
    lane.text(answer(`answer-${i}`, `${i}\n`));
  }
  expect(lane.rows.length).toBe(1002);
});

test("a character split across chunks survives, per stream", () => {
  const bytes = new TextEncoder().encode("né 日本\n");
  const lane = new Lane(0);
  for (const byte of bytes) {
    const base64 = btoa(String.fromCharCode(byte));
    lane.text({ kind: "output", bytes: base64 });
    lane.text({ kind: "log", stream: "stderr", bytes: base64 });
  }
  expect(rows(lane)).toEqual(["né 日本", "stderr:né 日本"]);
});

test("bytes that are no text show as replacement characters, also before text and at the end", () => {
  const half = btoa("\xe6\x97");
  const lane = laneOf({ kind: "output", bytes: half }, output("a\n"), { kind: "output", bytes: half });
  lane.finish();
  expect(rows(lane)).toEqual(["\uFFFDa", "\uFFFD"]);
});

test("a style lasts over lines until it is reset, and each stream has its own", () => {
  const lane = laneOf(output("\x1b[31mred\nstill"), log("plain\n"), output("\x1b[0m no\n"));
  expect(lane.rows.get(1)?.line.spans).toEqual([
    { text: "still", style: { fg: 1, bg: null, flags: 0 } },
    { text: " no", style: null },
  ]);
  expect(lane.rows.get(2)?.line.spans).toEqual([{ text: "plain", style: null }]);
});

test("a line without end is broken into rows", () => {
  const lane = laneOf(output("x".repeat(MAX_COLUMNS * 2 + 1)), output("y\n"));
  expect(rows(lane).map((text) => text.length)).toEqual([MAX_COLUMNS, MAX_COLUMNS, 2]);
});

test("marks of one progress are one row; what comes between them starts another", () => {
  const lane = new Lane(0);
  const event: RunEvent = { kind: "progress" };
  lane.mark("epoch 1", event, "mark", "epoch");
  lane.mark("epoch 2", event, "mark", "epoch");
  lane.text(output("line\n"));
  lane.mark("epoch 3", event, "mark", "epoch");
  expect(rows(lane)).toEqual(["mark:epoch 2", "line", "mark:epoch 3"]);
  expect(lane.chars).toBe("epoch 2line".length + "epoch 3".length);
});

test("trims by rows and by characters, and goes on after its open row was dropped", () => {
  const lane = laneOf(output("open"), log("a\nb\nc\n"));
  lane.trim(2, 1000);
  expect(rows(lane)).toEqual(["stderr:b", "stderr:c"]);
  lane.text(output(" end\n"));
  expect(rows(lane)).toEqual(["stderr:b", "stderr:c", " end"]);
  expect(lane.chars).toBe(6);
  lane.trim(100, 5);
  expect([lane.rows.first, lane.chars]).toEqual([3, 5]);
});
