// Which rows are rendered, and when the list follows its end.

import { expect, test } from "vitest";
import { FollowMode, ROW_HEIGHT_PX, rowsToRender } from "./viewport";

test("renders the visible rows and a few around them", () => {
  const height = 10 * ROW_HEIGHT_PX;
  expect(rowsToRender({ scrollTop: 0, height }, 1000)).toEqual({ from: 0, to: 22 });
  expect(rowsToRender({ scrollTop: 500 * ROW_HEIGHT_PX, height }, 1000)).toEqual({ from: 488, to: 522 });
  expect(rowsToRender({ scrollTop: 990 * ROW_HEIGHT_PX, height }, 1000)).toEqual({ from: 978, to: 1000 });
});

test("renders only rows that exist when the list is empty, short, or has shrunk", () => {
  expect(rowsToRender({ scrollTop: 0, height: 0 }, 0)).toEqual({ from: 0, to: 0 });
  expect(rowsToRender({ scrollTop: 0, height: 900 }, 3)).toEqual({ from: 0, to: 3 });
  const range = rowsToRender({ scrollTop: 99_999, height: 100 }, 3);
  expect(range.from).toBeLessThanOrEqual(range.to);
});

test("follows until the reader scrolls up, then counts unread rows", () => {
  const follow = new FollowMode();
  follow.onScroll(800, 200, 1000, 50);
  expect(follow.following).toBe(true);
  follow.onScroll(700, 200, 1000, 50);
  expect(follow.following).toBe(false);
  expect(follow.unreadRows(62)).toBe(12);
  follow.onScroll(1040, 200, 1240, 62);
  expect([follow.following, follow.unreadRows(70)]).toEqual([true, 0]);
});

test("rows that arrive before the event of the page's own scroll do not stop following", () => {
  const follow = new FollowMode();
  follow.setPosition(800, 200);
  follow.onScroll(800, 200, 1400, 70);
  expect(follow.following).toBe(true);
});

test("a viewport that grows does not stop following", () => {
  const follow = new FollowMode();
  follow.setPosition(800, 200);
  follow.onScroll(600, 400, 1100, 55);
  expect(follow.following).toBe(true);
});

test("scrolling down to a recent end resumes following", () => {
  const follow = new FollowMode();
  follow.setPosition(800, 200);
  follow.onScroll(500, 200, 1000, 50);
  follow.onScroll(490, 200, 1000, 50);
  follow.onScroll(800, 200, 1040, 52);
  expect(follow.following).toBe(true);
  follow.onScroll(780, 200, 1040, 52);
  expect(follow.following).toBe(false);
});

test("a jump to the end resumes following", () => {
  const follow = new FollowMode();
  follow.setPosition(800, 200);
  follow.onScroll(100, 200, 1000, 50);
  follow.resume();
  expect(follow.following).toBe(true);
});
