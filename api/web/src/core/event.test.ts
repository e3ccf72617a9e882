// Frames of the stream: parsed, or turned into a gap.

import { expect, test } from "vitest";
import { decodeBase64, isFinal, parseEvent } from "./event";

test("the envelope comes last, so it overrides a payload field of the same name", () => {
  expect(parseEvent('{"kind":"output","text":"hi\\n","id":"mine","id":"9-17","producer":"p","seq":17}').id).toBe(
    "9-17",
  );
});

test.each(["{", "[]", "null", '"text"', '{"kind":7}'])("%s becomes a gap", (data) => {
  expect(parseEvent(data)).toEqual({ kind: "gap", count: 1, reason: "unreadable" });
});

test("decodes base64, and replaces invalid base64 by a replacement character", () => {
  expect([...decodeBase64("/wAB")]).toEqual([255, 0, 1]);
  expect(new TextDecoder().decode(decodeBase64("***"))).toBe("\uFFFD");
});

test("a lost run is not final, because it may come back", () => {
  expect([isFinal("lost"), isFinal("running"), isFinal(undefined)]).toEqual([false, false, false]);
  expect([isFinal("succeeded"), isFinal("failed"), isFinal("cancelled")]).toEqual([true, true, true]);
});
