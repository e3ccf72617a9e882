// Polling: pauses while the page is hidden, and runs one task at a time.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { pollWhileVisible } from "./poll";

let page: EventTarget & { visibilityState: string };

beforeEach(() => {
  vi.useFakeTimers();
  page = Object.assign(new EventTarget(), { visibilityState: "visible" });
  vi.stubGlobal("document", page);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function show(state: string): void {
  page.visibilityState = state;
  page.dispatchEvent(new Event("visibilitychange"));
}

test("pauses while the page is hidden, and runs at once when it is shown", async () => {
  const act = vi.fn(async () => {});
  const stop = pollWhileVisible(2000, act);
  await vi.advanceTimersByTimeAsync(4000);
  expect(act).toHaveBeenCalledTimes(3);
  show("hidden");
  await vi.advanceTimersByTimeAsync(60_000);
  expect(act).toHaveBeenCalledTimes(3);
  show("visible");
  expect(act).toHaveBeenCalledTimes(4);
  stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(act).toHaveBeenCalledTimes(4);
});

test("runs one task at a time", async () => {
  let answer = () => {};
  const act = vi.fn(() => new Promise<void>((done) => (answer = done)));
  const stop = pollWhileVisible(1000, act);
  show("visible");
  await vi.advanceTimersByTimeAsync(10_000);
  expect(act).toHaveBeenCalledTimes(1);
  answer();
  await vi.advanceTimersByTimeAsync(1000);
  expect(act).toHaveBeenCalledTimes(2);
  stop();
});
