// Which rows are drawn, and when the list follows its end.

import { expect, test } from "vitest";
import { Follow, ROW_HEIGHT, visibleRows } from "./viewport";

test("draws what is in sight and a little around it", () => {
  const height = 10 * ROW_HEIGHT;
  expect(visibleRows({ scrollTop: 0, height }, 1000)).toEqual({ from: 0, to: 22 });
  expect(visibleRows({ scrollTop: 500 * ROW_HEIGHT, height }, 1000)).toEqual({ from: 488, to: 522 });
  expect(visibleRows({ scrollTop: 990 * ROW_HEIGHT, height }, 1000)).toEqual({ from: 978, to: 1000 });
});

test("stays within a list that is empty, short, or shorter than it was", () => {
  expect(visibleRows({ scrollTop: 0, height: 0 }, 0)).toEqual({ from: 0, to: 0 });
  expect(visibleRows({ scrollTop: 0, height: 900 }, 3)).toEqual({ from: 0, to: 3 });
  const past = visibleRows({ scrollTop: 99_999, height: 100 }, 3);
  expect(past.from).toBeLessThanOrEqual(past.to);
});

test("follows until the reader moves up, then counts what is new", () => {
  const follow = new Follow();
  follow.scrolled(800, 200, 1000, 50);
  expect(follow.following).toBe(true);
  follow.scrolled(700, 200, 1000, 50);
  expect(follow.following).toBe(false);
  expect(follow.unread(62)).toBe(12);
  follow.scrolled(1040, 200, 1240, 62);
  expect([follow.following, follow.unread(70)]).toEqual([true, 0]);
});

test("rows that arrive before our own scroll is told do not let go", () => {
  const follow = new Follow();
  follow.placed(800, 200);
  follow.scrolled(800, 200, 1400, 70);
  expect(follow.following).toBe(true);
});

test("a window that grows moves the view up without letting go", () => {
  const follow = new Follow();
  follow.placed(800, 200);
  follow.scrolled(600, 400, 1100, 55);
  expect(follow.following).toBe(true);
});

test("moving down to where the end was a moment ago is enough", () => {
  const follow = new Follow();
  follow.placed(800, 200);
  follow.scrolled(500, 200, 1000, 50);
  follow.scrolled(490, 200, 1000, 50);
  follow.scrolled(800, 200, 1040, 52);
  expect(follow.following).toBe(true);
  follow.scrolled(780, 200, 1040, 52);
  expect(follow.following).toBe(false);
});

test("a jump follows again", () => {
  const follow = new Follow();
  follow.placed(800, 200);
  follow.scrolled(100, 200, 1000, 50);
  follow.jump();
  expect(follow.following).toBe(true);
});
