// Rows of a variation: chunks joined into lines, redrawn lines, split characters, limits.

import { expect, test } from "vitest";
import type { RunEvent } from "./event";
import { MAX_COLUMNS } from "./line";
import { Lane } from "./log";

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

const start = (id: string, title: string, collapsed = false): RunEvent => ({
  ...output(`${id}\n`),
  group: { state: "start", id, title, collapsed },
});
const end = (id: string): RunEvent => ({ ...output("end\n"), group: { state: "end", id } });

/** The texts of the rows that are shown, indented by their groups. */
function shown(lane: Lane): string[] {
  const snapshot = lane.shown();
  return Array.from({ length: snapshot.count }, (_, place) => {
    const row = lane.rows.get(snapshot.rowAt(place));
    return `${" ".repeat(row?.depth ?? 0)}${row?.line.text}`;
  });
}

test("a marker is a header and not text; what it folds is not shown", () => {
  const lane = laneOf(output("a\n"), start("g", "Title", true), output("b\nc\n"), end("g"), output("d\n"));
  expect(rows(lane)).toEqual(["a", "group:Title", "b", "c", "d"]);
  expect(shown(lane)).toEqual(["a", "Title", "d"]);
  expect(lane.rows.get(1)?.group?.rows(lane.rows.end)).toBe(2);
});

test("a group of the same id ends the one before, and an end takes all that is in it", () => {
  const lane = laneOf(
    start("a", "A"),
    start("b", "B"),
    output("1\n"),
    start("b", "B2"),
    end("a"),
    end("b"),
    output("2\n"),
  );
  expect(shown(lane)).toEqual(["A", " B", "  1", " B2", "2"]);
});

test("the end of a marker's line is no empty line, however it is cut", () => {
  const marker: RunEvent = { ...output("section"), group: { state: "end", id: "x" } };
  expect(rows(laneOf(output("a"), marker, output("\nb\n")))).toEqual(["a", "b"]);
  expect(rows(laneOf(marker, output("b\n\n")))).toEqual(["b", ""]);
  expect(rows(laneOf(marker, output("\n\n")))).toEqual([""]);
  const bytes: RunEvent = { kind: "output", bytes: btoa("\xff\n"), group: { state: "end", id: "x" } };
  expect(rows(laneOf(bytes, output("\n")))).toEqual([""]);
});

test("a folded group can be opened by its producer, counts its errors, and ends with the lane", () => {
  const lane = laneOf(start("g", "G", true), { ...log("bad\n"), level: "error" });
  const group = lane.rows.get(0)?.group;
  group?.toggle();
  expect([group?.folded, group?.errors, group?.end]).toEqual([true, 1, null]);
  lane.text({ ...output("^^^ +++\n"), group: { state: "open", id: "g" } });
  expect(shown(lane)).toEqual(["G", " bad"]);
  lane.finish();
  expect(group?.end).toBe(2);
});

test("what was folded under a header that is dropped is shown", () => {
  const lane = laneOf(start("g", "G", true), output("1\n2\n3\n"), end("g"), output("4\n"));
  expect(shown(lane)).toEqual(["G", "4"]);
  lane.trim(3, 1000);
  expect(shown(lane)).toEqual([" 2", " 3", "4"]);
});

test("a line with a message is a record, and takes nothing from the lines around it", () => {
  const json: RunEvent = {
    ...output('{"level":"warn","msg":"slow","ms":12}\n'),
    level: "warn",
    message: "slow",
    format: "json",
  };
  const lane = laneOf(output("half"), json, output("next\n"));
  expect(rows(lane)).toEqual(["half", "slow ms=12", "next"]);
  expect([lane.rows.get(1)?.level, lane.hasLevels, lane.chars]).toEqual(["warn", true, 18]);
});

test("streams of other names have lines of their own", () => {
  const own: RunEvent = { kind: "log", stream: "runcast", text: "limit\n" };
  expect(rows(laneOf(log("half "), own, log("line\n")))).toEqual(["stderr:half line", "stderr:limit"]);
});

test("progress is kept by label, the newest last, until it is cleared", () => {
  const lane = new Lane(0);
  const tell = (label: string, current: number, state?: RunEvent["state"]) =>
    lane.tell({ kind: "progress", label, current, total: 100, ...(state === undefined ? {} : { state }) });
  tell("a", 1);
  tell("b", 1);
  tell("a", 2);
  expect([...lane.progress].map(([label, event]) => [label, event.current])).toEqual([
    ["b", 1],
    ["a", 2],
  ]);
  tell("a", 2, "cleared");
  expect([...lane.progress.keys()]).toEqual(["b"]);
  for (const label of ["c", "d", "e", "f"]) {
    tell(label, 1);
  }
  expect([...lane.progress.keys()]).toEqual(["c", "d", "e", "f"]);
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
