// The ring: items keep their numbers while the first ones are dropped.

import { expect, test } from "vitest";
import { Ring } from "./ring";

test("items keep their numbers while the first ones are dropped", () => {
  const ring = new Ring<string>();
  expect(["a", "b", "c"].map((item) => ring.push(item))).toEqual([0, 1, 2]);
  expect(ring.shift()).toBe("a");
  expect([ring.first, ring.end, ring.length]).toEqual([1, 3, 2]);
  expect([ring.get(0), ring.get(1), ring.get(2), ring.get(3)]).toEqual([undefined, "b", "c", undefined]);
});

test("holds the newest items after many pushes and shifts", () => {
  const ring = new Ring<number>();
  for (let i = 0; i < 10_000; i += 1) {
    ring.push(i);
    if (ring.length > 100) {
      ring.shift();
    }
  }
  expect([ring.first, ring.end]).toEqual([9900, 10_000]);
  expect(ring.get(9900)).toBe(9900);
  expect(ring.get(9999)).toBe(9999);
});

test("an empty ring has nothing to drop", () => {
  const ring = new Ring<number>();
  expect(ring.shift()).toBeUndefined();
  expect(ring.first).toBe(0);
});
