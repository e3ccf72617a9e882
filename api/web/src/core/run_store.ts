// What the page holds of one run: a lane of rows per variation, and what it has seen of each producer.
//
// It begins with the last events of the run; what is older is had a page at a time (past.ts).
// Bounded: MAX_ROWS rows and MAX_CHARS characters, shared equally by the lanes; the oldest rows of a lane go first and stay
// counted. An event is dropped when its seq is not above the highest seen of its producer: after a reconnect or a reborn
// stream the same event may come again under another id.

import type { RunEvent } from "./event";
import { Pulses } from "./heartbeat";
import { Lane } from "./log";

export const MAX_ROWS = 100_000;
export const MAX_CHARS = 32 * 1024 * 1024;

const LANE_KINDS = new Set(["output", "log", "status", "progress", "gap"]);

export class RunStore {
  readonly lanes = new Map<number, Lane>();
  readonly pulses = new Pulses();
  private readonly seen = new Map<string, number>();
  /** What a new lane has before it: the page may have been opened in the middle of a run. */
  private older: string | null = null;
  /** Events taken from producers, without those that came twice. */
  events = 0;

  constructor(
    private readonly maxRows = MAX_ROWS,
    private readonly maxChars = MAX_CHARS,
  ) {}

  lane(variation: number): Lane {
    let lane = this.lanes.get(variation);
    if (lane === undefined) {
      lane = new Lane(variation);
      lane.older = this.older;
      this.lanes.set(variation, lane);
    }
    return lane;
  }

  /** Begins with the last events of a run, before which there are others if `older` is not null. */
  open(events: readonly RunEvent[], older: string | null): void {
    this.older = older;
    for (const lane of this.lanes.values()) {
      lane.older = older;
    }
    this.apply(events);
  }

  apply(events: readonly RunEvent[]): void {
    for (const event of events) {
      if (this.isNew(event)) {
        this.one(event);
      }
    }
    const share = Math.max(1, this.lanes.size);
    for (const lane of this.lanes.values()) {
      lane.trim(Math.ceil(this.maxRows / share), Math.ceil(this.maxChars / share));
    }
  }

  /** The run is over: what stands in an unfinished line is all there will be. */
  finish(): void {
    for (const lane of this.lanes.values()) {
      lane.finish();
    }
  }

  private isNew(event: RunEvent): boolean {
    if (event.producer === undefined || event.seq === undefined) {
      return true;
    }
    if (event.seq <= (this.seen.get(event.producer) ?? 0)) {
      return false;
    }
    this.seen.set(event.producer, event.seq);
    this.events += 1;
    return true;
  }

  private one(event: RunEvent): void {
    if (event.kind === "heartbeat") {
      this.pulses.take(event, Date.now());
    } else if (event.kind === "gap" && event.variation === undefined) {
      // A gap that names no variation may have taken something from each of them.
      const lanes = this.lanes.size > 0 ? [...this.lanes.values()] : [this.lane(0)];
      for (const lane of lanes) {
        lane.live(event);
      }
    } else if (LANE_KINDS.has(event.kind)) {
      this.lane(event.variation ?? 0).live(event);
    }
  }
}
