// A line of terminal text: appending, overwriting, erasing.

import { expect, test } from "vitest";
import { BOLD, type Style } from "./ansi";
import { Line } from "./line";

const bold: Style = { fg: null, bg: null, flags: BOLD };

test("joins text of one style into one span", () => {
  const line = new Line();
  line.write("a", null);
  line.write("b", null);
  line.write("c", bold);
  line.write("d", { ...bold });
  expect(line.spans).toEqual([
    { text: "ab", style: null },
    { text: "cd", style: bold },
  ]);
});

test("writing after a carriage return replaces the old text", () => {
  const line = Line.of("progress 10%");
  line.column = 9;
  line.write("20", bold);
  expect(line.text).toBe("progress 20%");
  expect(line.spans.map((span) => span.text)).toEqual(["progress ", "20", "%"]);
  line.column = 0;
  line.write("done", null);
  expect(line.text).toBe("doneress 20%");
  expect(line.length).toBe(12);
});

test("a write may reach beyond the end of the line, or start beyond it", () => {
  const line = Line.of("abc");
  line.column = 2;
  line.write("XYZ", null);
  expect(line.text).toBe("abXYZ");
  line.column = 7;
  line.write("!", null);
  expect(line.text).toBe("abXYZ  !");
});

test("erases to the end, from the start, and all", () => {
  const line = Line.of("abcdef");
  line.column = 2;
  line.erase(1);
  expect(line.text).toBe("   def");
  expect(line.column).toBe(2);
  line.erase(0);
  expect(line.text).toBe("  ");
  line.erase(2);
  expect([line.text, line.length]).toEqual(["", 0]);
});

test("the remaining half of an overwritten wide character becomes a space", () => {
  const line = Line.of("🙂b");
  line.column = 0;
  line.write("a", null);
  expect(line.text).toBe("a b");
});
