// Records: message, fields, and text that does not fit.

import { expect, test } from "vitest";
import { DIM } from "./ansi";
import { MAX_COLUMNS } from "./line";
import { recordLine } from "./record";

const json = (text: string, message: string) =>
  recordLine({ kind: "output", text: `${text}\n`, message, format: "json" });

test("a record is the message, followed by the other fields in dim style", () => {
  const line = json('{"time":1,"severity":"INFO","message":"up","a":"b c","d":{"e":[1]},"f":null,"g":""}', "up");
  expect(line.text).toBe('up time=1 a="b c" d={"e":[1]} f=null g=""');
  expect(line.spans.map((span) => span.style?.flags)).toEqual([undefined, DIM]);
});

test("a byte order mark hides no field", () => {
  expect(json('\u{feff}{"level":"error","msg":"up","a":1}', "up").text).toBe("up a=1");
});

test("fields are shown as they were written", () => {
  const line = json('{"level":"info","msg":"order","id":1610521604143693812,"n":1.0,"z":1e400,"10":1,"2":2}', "order");
  expect(line.text).toBe("order id=1610521604143693812 n=1.0 z=1e400 10=1 2=2");
});

test("only the field that holds the message is left out", () => {
  expect(json('{"level":30,"msg":"real","message":7,"event":"e"}', "real").text).toBe("real message=7 event=e");
});

test("a message of several lines is one row, and keeps its colours", () => {
  const line = json('{"level":"error","msg":"x"}', "\u001b[31mone\u001b[0m\r\n\ttwo\u0007\n");
  expect(line.text).toBe("one \u23ce \ttwo msg=x");
  expect(line.spans[0]?.style?.fg).toBe(1);
});

test("text that does not fit ends with an ellipsis", () => {
  const long = "x".repeat(MAX_COLUMNS);
  expect(json('{"level":1}', long).length).toBe(MAX_COLUMNS);
  for (const line of [json("{}", `${long}x`), json(JSON.stringify({ a: long, b: long }), "m")]) {
    expect([line.length, line.text.endsWith("\u2026")]).toEqual([MAX_COLUMNS, true]);
  }
});

test("without fields, or with fields that cannot be parsed, a record is its message", () => {
  expect(recordLine({ kind: "output", text: "::error::a\n", message: "a" }).text).toBe("a");
  expect(json("{", "a").text).toBe("a");
});
