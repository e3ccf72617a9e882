// Whether the agents of a run live: the last sign of life of each, by this machine's clock, since agents' clocks differ.
//
// An agent gives one every 5 s; it is doubted after STALE_MS without and counts as lost after LOST_MS, until it is heard again.

import type { RunEvent } from "./event";
import { bytes, duration } from "./time";

export const STALE_MS = 15_000;
export const LOST_MS = 30_000;

export type Health = "alive" | "stale" | "lost";

interface Heard {
  readonly at: number;
  readonly event: RunEvent;
}

export class Pulses {
  private readonly last = new Map<number, Heard>();

  /** A variation has one agent at a time: its successor takes its place. */
  take(event: RunEvent, now: number): void {
    this.last.set(event.variation ?? 0, { at: now, event });
  }

  /** None while no agent of the variation was heard. */
  health(variation: number, now: number): Health | null {
    const heard = this.last.get(variation);
    if (heard === undefined) {
      return null;
    }
    const silence = now - heard.at;
    return silence >= LOST_MS ? "lost" : silence >= STALE_MS ? "stale" : "alive";
  }

  /** In words, for a line that is always in sight. */
  text(variation: number, now: number): string {
    const heard = this.last.get(variation);
    const health = this.health(variation, now);
    if (heard === undefined || health === null) {
      return "";
    }
    if (health !== "alive") {
      return `${health}: no sign of life for ${duration(now - heard.at)}`;
    }
    const { rss, cpu, unstored } = heard.event;
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
