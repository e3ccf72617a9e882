// Heartbeats: the health of an agent over time, and its text.

import { expect, test } from "vitest";
import { LatestHeartbeats, LOST_MS, STALE_MS } from "./heartbeat";

const heartbeat = { kind: "heartbeat", variation: 1, rss: 34 * 1024 * 1024, cpu: 0.123, unstored: 0 };

test("an agent becomes stale, then lost, and alive again with its next heartbeat", () => {
  const heartbeats = new LatestHeartbeats();
  expect(heartbeats.health(1, 0)).toBeNull();
  heartbeats.record(heartbeat, 1000);
  expect(heartbeats.health(1, 1000)).toBe("alive");
  expect(heartbeats.health(1, 1000 + STALE_MS)).toBe("stale");
  expect(heartbeats.health(1, 1000 + LOST_MS)).toBe("lost");
  expect(heartbeats.health(0, 1000)).toBeNull();
  heartbeats.record(heartbeat, 50_000);
  expect(heartbeats.health(1, 50_000)).toBe("alive");
});

test("the text has the resource usage, the silence and a backlog of unstored events", () => {
  const heartbeats = new LatestHeartbeats();
  expect(heartbeats.text(1, 0)).toBe("");
  heartbeats.record(heartbeat, 0);
  expect(heartbeats.text(1, 0)).toBe("alive, 12 % CPU, 34.0 MiB");
  expect(heartbeats.text(1, STALE_MS)).toMatch(/^stale: no heartbeat for 15/);
  heartbeats.record({ ...heartbeat, unstored: 20_000 }, 0);
  expect(heartbeats.text(1, 0)).toMatch(/20,000 events not stored yet$/);
});
