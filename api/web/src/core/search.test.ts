// A search in pieces, what is marked in a match, and what a reader means by a place.

import { expect, test } from "vitest";
import { Find, highlighted, type Match, parsePlace, type SearchAnswer } from "./search";

const match = (text: string, places: [number, number][] = []): Match => ({
  id: "7-1",
  kind: "output",
  variation: 0,
  time: 1,
  text,
  cut: false,
  places,
});

test("goes on until something is found, from where the last answer came to", async () => {
  const answers: SearchAnswer[] = [
    { matches: [], cursor: "7-900", done: false, events: 100 },
    { matches: [match("a")], cursor: "7-500", done: false, events: 400 },
    { matches: [match("b")], cursor: "7-1", done: true, events: 500 },
  ];
  const asked: string[] = [];
  const what = { text: "a&b", regex: false, ignoreCase: true };
  const find = new Find(
    "r",
    what,
    () => {},
    async (path) => {
      asked.push(path);
      return answers.shift() as SearchAnswer;
    },
  );
  await find.more();
  expect([find.matches.length, find.done, find.events]).toEqual([1, false, 500]);
  await find.more();
  await find.more();
  expect([find.matches.length, find.done, find.busy]).toEqual([2, true, false]);
  expect(asked.map((path) => new URL(path, "http://x").searchParams.get("before"))).toEqual(["end", "7-900", "7-500"]);
  expect(new URL(asked[0] ?? "", "http://x").searchParams.get("q")).toBe("a&b");
});

test("a refusal is told", async () => {
  const find = new Find(
    "r",
    { text: "(", regex: true, ignoreCase: false },
    () => {},
    async () => {
      throw new Error("parameter regex: unclosed group at character 1");
    },
  );
  await find.more();
  expect([find.problem, find.busy]).toEqual(["parameter regex: unclosed group at character 1", false]);
});

test("marks the places of a match", () => {
  const parts = highlighted(
    match("one two one", [
      [0, 3],
      [8, 11],
    ]),
  );
  expect(parts.map((part) => (part.hit ? `[${part.text}]` : part.text)).join("")).toBe("[one] two [one]");
});

test("a place is a line or a moment", () => {
  expect(parsePlace(" 12,345 ")).toEqual({ line: 12345 });
  expect(parsePlace("2026-01-31T12:00:00Z")).toEqual({ at: Date.UTC(2026, 0, 31, 12) });
  expect([parsePlace("0"), parsePlace("soon"), parsePlace("")]).toEqual([null, null, null]);
});
