// Unfolded rows: indices and numbers agree, whatever is folded and dropped.

import { expect, test } from "vitest";
import { type Group, Groups } from "./groups";

/** A reproducible sequence of numbers below `limit`. */
function dice(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return state % limit;
  };
}

test("indices and numbers of rows agree with a plain count, whatever is folded", () => {
  const roll = dice(3);
  for (let round = 0; round < 300; round += 1) {
    const groups = new Groups();
    /** For each row, the groups it is in. */
    const inside: Group[][] = [];
    let open: Group[] = [];
    for (let row = 0; row < 60; row += 1) {
      const act = roll(6);
      const id = `${roll(3)}`;
      if (act <= 1) {
        groups.end(id, row);
        const at = open.findLastIndex((group) => group.id === id);
        open = at < 0 ? open : open.slice(0, at);
      }
      inside.push([...open]);
      if (act === 0) {
        open.push(groups.start({ state: "start", id, collapsed: roll(2) === 0 }, row));
      }
    }
    const first = roll(30);
    groups.dropStart(first);
    const expected: number[] = [];
    for (let row = first; row < 60; row += 1) {
      if (!inside[row]?.some((group) => group.folded && group.header >= first)) {
        expected.push(row);
      }
    }
    const unfolded = groups.unfoldedRows(first, 60);
    expect(Array.from({ length: unfolded.count }, (_, index) => unfolded.rowAt(index))).toEqual(expected);
    for (let row = first; row < 60; row += 1) {
      // The index of a hidden row is that of the last unfolded row before it: its header.
      const index = expected.filter((number) => number <= row).length - 1;
      expect(unfolded.indexOf(row)).toBe(index);
    }
  }
});

test("an open group that is folded hides new rows", () => {
  const groups = new Groups();
  const group = groups.start({ state: "start", id: "a", title: "A", collapsed: true }, 0);
  expect(groups.unfoldedRows(0, 50).count).toBe(50);
  group.toggle();
  expect([groups.unfoldedRows(0, 1).count, groups.unfoldedRows(0, 50).count]).toEqual([1, 1]);
  expect([group.rowCount(50), groups.depth]).toEqual([49, 1]);
  groups.unfold("a");
  expect(groups.unfoldedRows(0, 50).count).toBe(50);
  groups.finish(50);
  expect([group.end, groups.depth]).toEqual([50, 0]);
});

test("a group is folded when it has ended, unless it holds errors or the reader chose otherwise", () => {
  const groups = new Groups();
  const start = (collapsed: boolean) => groups.start({ state: "start", id: "a", collapsed }, 0);
  const ended = (group: Group) => {
    groups.end("a", 9);
    return group.folded;
  };
  expect([ended(start(true)), ended(start(false))]).toEqual([true, false]);
  const chosen = start(true);
  chosen.toggle();
  chosen.toggle();
  expect(ended(chosen)).toBe(false);
  const failing = start(true);
  groups.countError();
  expect(ended(failing)).toBe(false);
  const cutOff = start(true);
  groups.finish(9);
  expect([cutOff.folded, cutOff.end]).toEqual([false, 9]);
});

test("the index after the last row is the end, and a dropped row has the index of the first", () => {
  const groups = new Groups();
  groups.start({ state: "start", id: "a", collapsed: true }, 5);
  groups.end("a", 8);
  const unfolded = groups.unfoldedRows(4, 10);
  expect([unfolded.indexOf(0), unfolded.indexOf(6), unfolded.indexOf(8), unfolded.indexOf(10)]).toEqual([0, 1, 2, 4]);
});
