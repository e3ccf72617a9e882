// Rows of a log: chunks joined into lines, redrawn lines, split characters, groups, limits.

import { expect, test } from "vitest";
import type { RunEvent } from "./event";
import { MAX_COLUMNS } from "./line";
import { VariationLog } from "./log";

const stdout = (text: string): RunEvent => ({ kind: "output", text, time: 1 });
const stderr = (text: string): RunEvent => ({ kind: "log", stream: "stderr", text, time: 2 });

function rows(log: VariationLog): string[] {
  const texts: string[] = [];
  for (let at = log.rows.first; at < log.rows.end; at += 1) {
    const row = log.rows.get(at);
    texts.push(`${row?.source === "stdout" ? "" : `${row?.source}:`}${row?.line.text}`);
  }
  return texts;
}

function logOf(...events: RunEvent[]): VariationLog {
  const log = new VariationLog(0);
  for (const event of events) {
    log.appendChunk(event);
  }
  return log;
}

test("chunks are joined until the newline, and empty lines are kept", () => {
  expect(rows(logOf(stdout("one "), stdout("line\n\ntwo"), stdout("\n")))).toEqual(["one line", "", "two"]);
});

test("an open line continues in its row, even after rows of another stream", () => {
  expect(rows(logOf(stdout("down"), stderr("warning\n"), stdout("load\nnext\n")))).toEqual([
    "download",
    "stderr:warning",
    "next",
  ]);
});

test("a carriage return redraws the line, CR LF ends it", () => {
  const log = logOf(stdout("10%"), stdout("\r20%"), stdout("\r\x1b[K5%"), stdout("\r\nend\r\n"));
  expect(rows(log)).toEqual(["5%", "end"]);
  expect(log.chars).toBe(5);
});

test("chunks of concurrent answers are joined by stream name, however many streams there were", () => {
  const log = new VariationLog(0);
  const answer = (stream: string, text: string): RunEvent => ({ kind: "output", stream, text, time: 3 });
  for (const [stream, text] of [
    ["one", "a"],
    ["two", "x"],
    ["one", "b\n"],
    ["two", "y\n"],
  ] as const) {
    log.appendChunk(answer(stream, text));
  }
  expect(rows(log)).toEqual(["ab", "xy"]);
  for (let i = 0; i < 1000; i += 1) {
    log.appendChunk(answer(`answer-${i}`, `${i}\n`));
  }
  expect(log.rows.length).toBe(1002);
});

test("a character split across chunks is decoded, for each stream on its own", () => {
  const bytes = new TextEncoder().encode("né 日本\n");
  const log = new VariationLog(0);
  for (const byte of bytes) {
    const base64 = btoa(String.fromCharCode(byte));
    log.appendChunk({ kind: "output", bytes: base64 });
    log.appendChunk({ kind: "log", stream: "stderr", bytes: base64 });
  }
  expect(rows(log)).toEqual(["né 日本", "stderr:né 日本"]);
});

test("bytes that are not UTF-8 become replacement characters, also before text and at the end", () => {
  const half = btoa("\xe6\x97");
  const log = logOf({ kind: "output", bytes: half }, stdout("a\n"), { kind: "output", bytes: half });
  log.finish();
  expect(rows(log)).toEqual(["\uFFFDa", "\uFFFD"]);
});

test("a style lasts across lines until it is reset, and each stream has its own", () => {
  const log = logOf(stdout("\x1b[31mred\nstill"), stderr("plain\n"), stdout("\x1b[0m no\n"));
  expect(log.rows.get(1)?.line.spans).toEqual([
    { text: "still", style: { fg: 1, bg: null, flags: 0 } },
    { text: " no", style: null },
  ]);
  expect(log.rows.get(2)?.line.spans).toEqual([{ text: "plain", style: null }]);
});

test("a line longer than MAX_COLUMNS is split into rows", () => {
  const log = logOf(stdout("x".repeat(MAX_COLUMNS * 2 + 1)), stdout("y\n"));
  expect(rows(log).map((text) => text.length)).toEqual([MAX_COLUMNS, MAX_COLUMNS, 2]);
});

const start = (id: string, title: string, collapsed = false): RunEvent => ({
  ...stdout(`${id}\n`),
  group: { state: "start", id, title, collapsed },
});
const end = (id: string): RunEvent => ({ ...stdout("end\n"), group: { state: "end", id } });

/** The texts of the unfolded rows, indented by the depth of their groups. */
function unfolded(log: VariationLog): string[] {
  const snapshot = log.unfoldedRows();
  return Array.from({ length: snapshot.count }, (_, index) => {
    const row = log.rows.get(snapshot.rowAt(index));
    return `${" ".repeat(row?.depth ?? 0)}${row?.line.text}`;
  });
}

test("a marker becomes a header instead of text, and its folded rows are hidden", () => {
  const log = logOf(stdout("a\n"), start("g", "Title", true), stdout("b\nc\n"), end("g"), stdout("d\n"));
  expect(rows(log)).toEqual(["a", "group:Title", "b", "c", "d"]);
  expect(unfolded(log)).toEqual(["a", "Title", "d"]);
  expect(log.rows.get(1)?.group?.rowCount(log.rows.end)).toBe(2);
});

test("a group ends an open one with the same id, and an end also ends all nested groups", () => {
  const log = logOf(
    start("a", "A"),
    start("b", "B"),
    stdout("1\n"),
    start("b", "B2"),
    end("a"),
    end("b"),
    stdout("2\n"),
  );
  expect(unfolded(log)).toEqual(["A", " B", "  1", " B2", "2"]);
});

test("the newline after a marker is not an empty line, wherever chunks end", () => {
  const marker: RunEvent = { ...stdout("section"), group: { state: "end", id: "x" } };
  expect(rows(logOf(stdout("a"), marker, stdout("\nb\n")))).toEqual(["a", "b"]);
  expect(rows(logOf(marker, stdout("b\n\n")))).toEqual(["b", ""]);
  expect(rows(logOf(marker, stdout("\n\n")))).toEqual([""]);
  const bytes: RunEvent = { kind: "output", bytes: btoa("\xff\n"), group: { state: "end", id: "x" } };
  expect(rows(logOf(bytes, stdout("\n")))).toEqual([""]);
});

test("a producer can open a folded group; the group counts errors and ends with the log", () => {
  const log = logOf(start("g", "G", true), { ...stderr("bad\n"), level: "error" });
  const group = log.rows.get(0)?.group;
  group?.toggle();
  expect([group?.folded, group?.errors, group?.end]).toEqual([true, 1, null]);
  log.appendChunk({ ...stdout("^^^ +++\n"), group: { state: "open", id: "g" } });
  expect(unfolded(log)).toEqual(["G", " bad"]);
  log.finish();
  expect(group?.end).toBe(2);
});

test("rows are no longer hidden when the header of their folded group is dropped", () => {
  const log = logOf(start("g", "G", true), stdout("1\n2\n3\n"), end("g"), stdout("4\n"));
  expect(unfolded(log)).toEqual(["G", "4"]);
  log.trimStart(3, 1000);
  expect(unfolded(log)).toEqual([" 2", " 3", "4"]);
});

test("a line with a message becomes a record, and leaves the lines around it unchanged", () => {
  const json: RunEvent = {
    ...stdout('{"level":"warn","msg":"slow","ms":12}\n'),
    level: "warn",
    message: "slow",
    format: "json",
  };
  const log = logOf(stdout("half"), json, stdout("next\n"));
  expect(rows(log)).toEqual(["half", "slow ms=12", "next"]);
  expect([log.rows.get(1)?.level, log.hasLevels, log.chars]).toEqual(["warn", true, 18]);
});

test("streams with other names have lines of their own", () => {
  const own: RunEvent = { kind: "log", stream: "runcast", text: "limit\n" };
  expect(rows(logOf(stderr("half "), own, stderr("line\n")))).toEqual(["stderr:half line", "stderr:limit"]);
});

test("progress is kept by label, the newest last, until it is cleared or above the limit", () => {
  const log = new VariationLog(0);
  const report = (label: string, current: number, state?: RunEvent["state"]) =>
    log.setProgress({ kind: "progress", label, current, total: 100, ...(state === undefined ? {} : { state }) });
  report("a", 1);
  report("b", 1);
  report("a", 2);
  expect([...log.progress].map(([label, event]) => [label, event.current])).toEqual([
    ["b", 1],
    ["a", 2],
  ]);
  report("a", 2, "cleared");
  expect([...log.progress.keys()]).toEqual(["b"]);
  for (const label of ["c", "d", "e", "f"]) {
    report(label, 1);
  }
  expect([...log.progress.keys()]).toEqual(["c", "d", "e", "f"]);
});

test("trimming limits rows and characters, and a stream continues after its open row was dropped", () => {
  const log = logOf(stdout("open"), stderr("a\nb\nc\n"));
  log.trimStart(2, 1000);
  expect(rows(log)).toEqual(["stderr:b", "stderr:c"]);
  log.appendChunk(stdout(" end\n"));
  expect(rows(log)).toEqual(["stderr:b", "stderr:c", " end"]);
  expect(log.chars).toBe(6);
  log.trimStart(100, 5);
  expect([log.rows.first, log.chars]).toEqual([3, 5]);
});
