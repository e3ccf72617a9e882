import { expect, test } from "vitest";
import { LOST_MS, Pulses, STALE_MS } from "./heartbeat";

const beat = { kind: "heartbeat", variation: 1, rss: 34 * 1024 * 1024, cpu: 0.123, unstored: 0 };

test("silence is told in two steps, and taken back", () => {
  const pulses = new Pulses();
  expect(pulses.health(1, 0)).toBeNull();
  pulses.take(beat, 1000);
  expect(pulses.health(1, 1000)).toBe("alive");
  expect(pulses.health(1, 1000 + STALE_MS)).toBe("stale");
  expect(pulses.health(1, 1000 + LOST_MS)).toBe("lost");
  expect(pulses.health(0, 1000)).toBeNull();
  pulses.take(beat, 50_000);
  expect(pulses.health(1, 50_000)).toBe("alive");
});

test("a pulse says what matters", () => {
  const pulses = new Pulses();
  expect(pulses.text(1, 0)).toBe("");
  pulses.take(beat, 0);
  expect(pulses.text(1, 0)).toBe("alive, 12 % CPU, 34.0 MiB");
  expect(pulses.text(1, STALE_MS)).toMatch(/^stale: no sign of life for 15/);
  pulses.take({ ...beat, unstored: 20_000 }, 0);
  expect(pulses.text(1, 0)).toMatch(/20,000 events not stored yet$/);
});
