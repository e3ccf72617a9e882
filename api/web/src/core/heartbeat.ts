// The latest heartbeat of each agent of a run, and the agent's health derived from it. Times are by
// this machine's clock, because the clocks of agents differ.
//
// An agent sends a heartbeat every 5 s. It is stale after STALE_MS without one and lost after
// LOST_MS, until the next heartbeat arrives.

import type { RunEvent } from "./event";
import { bytes, duration } from "./time";

export const STALE_MS = 15_000;
export const LOST_MS = 30_000;

export type AgentHealth = "alive" | "stale" | "lost";

interface ReceivedHeartbeat {
  readonly receivedAt: number;
  readonly event: RunEvent;
}

export class LatestHeartbeats {
  private readonly byVariation = new Map<number, ReceivedHeartbeat>();

  /** A variation has one agent at a time: a successor replaces the agent before it. */
  record(event: RunEvent, now: number): void {
    this.byVariation.set(event.variation ?? 0, { receivedAt: now, event });
  }

  /** Null until the first heartbeat of the variation. */
  health(variation: number, now: number): AgentHealth | null {
    const latest = this.byVariation.get(variation);
    if (latest === undefined) {
      return null;
    }
    const silence = now - latest.receivedAt;
    return silence >= LOST_MS ? "lost" : silence >= STALE_MS ? "stale" : "alive";
  }

  /** The health as a text of one line, empty until the first heartbeat. */
  text(variation: number, now: number): string {
    const latest = this.byVariation.get(variation);
    const health = this.health(variation, now);
    if (latest === undefined || health === null) {
      return "";
    }
    if (health !== "alive") {
      return `${health}: no heartbeat for ${duration(now - latest.receivedAt)}`;
    }
    const { rss, cpu, unstored } = latest.event;
    const facts = ["alive"];
    if (cpu !== undefined) {
      facts.push(`${Math.round(cpu * 100)} % CPU`);
    }
    if (rss !== undefined) {
      facts.push(bytes(rss));
    }
    if (unstored !== undefined && unstored > 1000) {
      facts.push(`${unstored.toLocaleString("en")} events not stored yet`);
    }
    return facts.join(", ");
  }
}
