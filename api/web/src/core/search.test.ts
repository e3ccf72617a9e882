// A search in several requests, the highlighted parts of a match, and parsing a position.

import { expect, test } from "vitest";
import { highlightMatch, type Match, parsePosition, RunSearch, type SearchAnswer } from "./search";

const match = (text: string, places: [number, number][] = []): Match => ({
  id: "7-1",
  kind: "output",
  variation: 0,
  time: 1,
  text,
  cut: false,
  places,
});

test("continues from the cursor of the last answer until there is a match", async () => {
  const answers: SearchAnswer[] = [
    { matches: [], cursor: "7-900", done: false, events: 100 },
    { matches: [match("a")], cursor: "7-500", done: false, events: 400 },
    { matches: [match("b")], cursor: "7-1", done: true, events: 500 },
  ];
  const requested: string[] = [];
  const query = { text: "a&b", regex: false, ignoreCase: true };
  const search = new RunSearch(
    "r",
    query,
    () => {},
    async (path) => {
      requested.push(path);
      return answers.shift() as SearchAnswer;
    },
  );
  await search.loadMore();
  expect([search.matches.length, search.done, search.events]).toEqual([1, false, 500]);
  await search.loadMore();
  await search.loadMore();
  expect([search.matches.length, search.done, search.busy]).toEqual([2, true, false]);
  expect(requested.map((path) => new URL(path, "http://x").searchParams.get("before"))).toEqual([
    "end",
    "7-900",
    "7-500",
  ]);
  expect(new URL(requested[0] ?? "", "http://x").searchParams.get("q")).toBe("a&b");
});

test("a refused search shows the problem", async () => {
  const search = new RunSearch(
    "r",
    { text: "(", regex: true, ignoreCase: false },
    () => {},
    async () => {
      throw new Error("parameter regex: unclosed group at character 1");
    },
  );
  await search.loadMore();
  expect([search.problem, search.busy]).toEqual(["parameter regex: unclosed group at character 1", false]);
});

test("highlights the matching parts of a line", () => {
  const parts = highlightMatch(
    match("one two one", [
      [0, 3],
      [8, 11],
    ]),
  );
  expect(parts.map((part) => (part.hit ? `[${part.text}]` : part.text)).join("")).toBe("[one] two [one]");
});

test("a position is a line number or a time", () => {
  expect(parsePosition(" 12,345 ")).toEqual({ line: 12345 });
  expect(parsePosition("2026-01-31T12:00:00Z")).toEqual({ at: Date.UTC(2026, 0, 31, 12) });
  expect([parsePosition("0"), parsePosition("soon"), parsePosition("")]).toEqual([null, null, null]);
});
