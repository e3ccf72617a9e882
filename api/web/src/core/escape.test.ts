// The escape parser: what it handles, and that all other escapes leave no garbage, wherever chunks
// end.

import { expect, test } from "vitest";
import { EscapeReader, type EscapeSink } from "./escape";

function recorder() {
  const calls: string[] = [];
  const sink: EscapeSink = {
    print: (text) => calls.push(text),
    newline: () => calls.push("<nl>"),
    moveCursor: (move) => calls.push("to" in move ? `<to ${move.to}>` : `<by ${move.by}>`),
    eraseInLine: (mode) => calls.push(`<erase ${mode}>`),
    setStyle: (params) => calls.push(`<style ${params}>`),
  };
  return { calls, sink };
}

function read(...chunks: string[]): string {
  const { calls, sink } = recorder();
  const reader = new EscapeReader();
  for (const chunk of chunks) {
    reader.read(chunk, sink);
  }
  return calls.join("");
}

test("parses text, newlines, cursor moves, erasing and styles", () => {
  expect(read("a\tb\r\nc\x1b[1;31md\x1b[m\x1b[K\x1b[2K\x1b[5Ge\bf")).toBe(
    "a\tb<to 0><nl>c<style 1;31>d<style ><erase 0><erase 2><to 4>e<by -1>f",
  );
});

test("an escape may be split between chunks anywhere", () => {
  const whole = "x\x1b[38;5;208my\x1b]0;title\x1b\\z";
  for (let at = 1; at < whole.length; at += 1) {
    expect(read(whole.slice(0, at), whole.slice(at))).toBe("x<style 38;5;208>yz");
  }
});

test.each([
  ["cursor movement", "\x1b[2A\x1b[10;20H\x1b[?25l\x1b[2J"],
  ["a title, ended by BEL", "\x1b]0;my title\x07"],
  ["a link around its text", "\x1b]8;;https://example.com\x1b\\\x1b]8;;\x1b\\"],
  ["a device string", "\x1bP1$r0m\x1b\\"],
  ["a charset and a keypad mode", "\x1b(B\x1b="],
  ["lone controls", "\x00\x07\x0b\x7f\x9b"],
  ["an escape interrupted by another", "\x1b[12\x1b[?7h"],
  ["a cancelled escape", "\x1b[31\x18"],
])("drops %s", (_, text) => {
  expect(read(`a${text}b`)).toBe("ab");
});

test("a string escape that never ends does not hide the rest of the run", () => {
  expect(read(`\x1b]${"x".repeat(5000)}`, "\nback")).toContain("<nl>back");
});
