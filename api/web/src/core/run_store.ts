// What the page holds of one run: a log per variation, and the highest seq seen of each producer.
//
// It starts with the last events of the run; older ones are loaded a page at a time (history.ts).
// Bounds: MAX_ROWS rows and MAX_CHARS characters, shared equally by the logs. Each log drops its
// oldest rows first; their numbers are not used again.
// An event is dropped unless its seq is above the highest seen of its producer, because after a
// reconnect or a rebuilt stream the same event may come again under another id.

import type { RunEvent } from "./event";
import { LatestHeartbeats } from "./heartbeat";
import { VariationLog } from "./log";

export const MAX_ROWS = 100_000;
export const MAX_CHARS = 32 * 1024 * 1024;

const LOG_KINDS = new Set(["output", "log", "status", "progress", "gap"]);

export class RunStore {
  readonly logs = new Map<number, VariationLog>();
  readonly heartbeats = new LatestHeartbeats();
  private readonly highestSeqs = new Map<string, number>();
  /**
   * The cursor of older events for a new log: the page may have been opened in the middle of a run.
   */
  private older: string | null = null;
  /** Events of producers so far, without duplicates. */
  events = 0;

  constructor(
    private readonly maxRows = MAX_ROWS,
    private readonly maxChars = MAX_CHARS,
  ) {}

  /** The log of a variation, created if it is new. */
  log(variation: number): VariationLog {
    let log = this.logs.get(variation);
    if (log === undefined) {
      log = new VariationLog(variation);
      log.older = this.older;
      this.logs.set(variation, log);
    }
    return log;
  }

  /** Starts with the last events of a run; `older` is not null if there are others before them. */
  open(events: readonly RunEvent[], older: string | null): void {
    this.older = older;
    for (const log of this.logs.values()) {
      log.older = older;
    }
    this.apply(events);
  }

  apply(events: readonly RunEvent[]): void {
    for (const event of events) {
      if (this.isNew(event)) {
        this.applyOne(event);
      }
    }
    const share = Math.max(1, this.logs.size);
    for (const log of this.logs.values()) {
      log.trimStart(Math.ceil(this.maxRows / share), Math.ceil(this.maxChars / share));
    }
  }

  /** The run is over: unfinished lines are complete as they are. */
  finish(): void {
    for (const log of this.logs.values()) {
      log.finish();
    }
  }

  private isNew(event: RunEvent): boolean {
    if (event.producer === undefined || event.seq === undefined) {
      return true;
    }
    if (event.seq <= (this.highestSeqs.get(event.producer) ?? 0)) {
      return false;
    }
    this.highestSeqs.set(event.producer, event.seq);
    this.events += 1;
    return true;
  }

  private applyOne(event: RunEvent): void {
    if (event.kind === "heartbeat") {
      this.heartbeats.record(event, Date.now());
    } else if (event.kind === "gap" && event.variation === undefined) {
      // A gap that names no variation may have lost events of each of them.
      const logs = this.logs.size > 0 ? [...this.logs.values()] : [this.log(0)];
      for (const log of logs) {
        log.appendLive(event);
      }
    } else if (LOG_KINDS.has(event.kind)) {
      this.log(event.variation ?? 0).appendLive(event);
    }
  }
}
