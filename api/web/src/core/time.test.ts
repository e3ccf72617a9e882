// Formatting of times and numbers.

import { expect, test } from "vitest";
import { age, amount, bytes, clock, duration } from "./time";

test.each([
  [-5, "0s"],
  [900, "0s"],
  [41_000, "41s"],
  [187_000, "3m 07s"],
  [8_100_000, "2h 15m"],
  [442_800_000, "5d 3h"],
])("%d ms last %s", (ms, text) => {
  expect(duration(ms)).toBe(text);
});

test("an age has one unit", () => {
  expect([age(-10), age(500), age(12_900), age(7_300_000)]).toEqual(["now", "now", "12s ago", "2h ago"]);
});

test("a clock time has milliseconds and is local", () => {
  expect(clock(new Date(2026, 10, 21, 4, 3, 7, 25).getTime())).toBe("04:03:07.025");
});

test("numbers have separators, and byte counts have units", () => {
  expect(amount(1234567)).toBe("1,234,567");
  expect([bytes(0), bytes(1023), bytes(1536), bytes(200 * 1024), bytes(5e9)]).toEqual([
    "0 B",
    "1023 B",
    "1.5 KiB",
    "200 KiB",
    "4.7 GiB",
  ]);
});
