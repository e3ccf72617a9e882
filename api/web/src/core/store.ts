// What the page holds of one run: a lane of rows per variation, and what it has seen of each producer.
//
// Bounded: MAX_ROWS rows and MAX_CHARS characters, shared equally by the lanes; the oldest rows of a lane go first and stay
// counted. An event is dropped when its seq is not above the highest seen of its producer: after a reconnect or a reborn
// stream the same event may come again under another id.

import { isFinal, type RunEvent } from "./event";
import { Lane } from "./lane";
import { Pulses } from "./pulse";

export const MAX_ROWS = 100_000;
export const MAX_CHARS = 32 * 1024 * 1024;

export class RunStore {
  readonly lanes = new Map<number, Lane>();
  readonly pulses = new Pulses();
  private readonly seen = new Map<string, number>();
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
      this.lanes.set(variation, lane);
    }
    return lane;
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
    switch (event.kind) {
      case "output":
      case "log":
        this.lane(event.variation ?? 0).text(event);
        break;
      case "status":
        this.status(event);
        break;
      case "progress":
        this.lane(event.variation ?? 0).tell(event);
        break;
      case "gap":
        this.gap(event);
        break;
      case "heartbeat":
        this.pulses.take(event, Date.now());
        break;
    }
  }

  private status(event: RunEvent): void {
    const lane = this.lane(event.variation ?? 0);
    lane.status = event.status;
    lane.exitCode = event.exit_code ?? null;
    lane.signal = event.signal ?? null;
    if (isFinal(event.status)) {
      lane.finish();
    }
    lane.mark(statusText(event), event);
  }

  private gap(event: RunEvent): void {
    // A gap that names no variation may have taken something from each of them.
    const lanes = event.variation === undefined ? [...this.lanes.values()] : [this.lane(event.variation)];
    for (const lane of lanes.length > 0 ? lanes : [this.lane(0)]) {
      if (event.reason !== "reborn") {
        lane.finish();
      }
      lane.mark(gapText(event), event, "gap");
    }
  }
}

export function gapText(event: RunEvent): string {
  const reason = event.reason ?? "unknown reason";
  if (reason === "reborn") {
    return "the stream was rebuilt here; what is sent again is shown once";
  }
  if (reason === "cap" && event.count != null) {
    return `${event.count.toLocaleString("en")} events left out here: the output is over its limit (--max-output)`;
  }
  if (event.count == null) {
    return `events may be missing here: ${reason}`;
  }
  return `${event.count.toLocaleString("en")} ${event.count === 1 ? "event" : "events"} missing: ${reason}`;
}

function statusText(event: RunEvent): string {
  const how =
    event.signal != null ? `, signal ${event.signal}` : event.exit_code != null ? `, exit code ${event.exit_code}` : "";
  return `status: ${event.status ?? "unknown"}${how}`;
}
