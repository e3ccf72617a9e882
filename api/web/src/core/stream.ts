// The live connection of one run: keeps it, names its state, and hands on what arrives in batches.
//
// EventSource reconnects by itself with `Last-Event-ID`. It gives up for good on any answer but an event stream; the stream
// then asks why (`diagnose`), and opens again just after the last event it saw, with jittered backoff of 1 to 30 s.
// Events are kept raw in an array and handed on at most every FLUSH_MS, the first of a quiet stream at once. A timer does
// that, not a frame: a hidden tab has no frames. The array holds at most FLUSH_EVENTS, however rarely a timer fires.

import { CHANNELS, parseEvent, type RunEvent } from "./event";
import { streamPath } from "./url";

export const FLUSH_MS = 50;
const FLUSH_EVENTS = 5000;
const RETRY_FIRST_MS = 1000;
const RETRY_MOST_MS = 30_000;

export type LinkState =
  | "connecting"
  | "catching-up"
  | "live"
  | "reconnecting"
  | "degraded"
  | "draining"
  | "ended"
  | "failed";

/** Why a stream was refused: come again, the run is over and all of it was seen, or there is no use in coming again. */
export type Diagnosis = { act: "retry"; why: string } | { act: "ended" } | { act: "stop"; why: string };

export interface Frame {
  readonly data: string;
  readonly lastEventId: string;
}

/** As much of EventSource as is used, so that a test can play the gateway. */
export interface Source {
  readonly readyState: number;
  addEventListener(kind: string, listener: (frame: Frame) => void): void;
  close(): void;
}

export interface StreamHooks {
  open(url: string): Source;
  diagnose(after: string): Promise<Diagnosis>;
  events(batch: RunEvent[]): void;
  state(state: LinkState, detail: string): void;
  /** The run is lost or found again: nothing that is stored as an event of it. */
  changed(data: string): void;
  /** 0 <= n < 1 */
  random(): number;
}

const CLOSED = 2;

export class RunStream {
  state: LinkState = "connecting";
  detail = "";
  private source: Source | null = null;
  private lastId = "0-0";
  private frames: string[] = [];
  private flushTimer: ReturnType<typeof setTimeout> | null = null;
  private flushedAt = 0;
  private retryTimer: ReturnType<typeof setTimeout> | null = null;
  private failures = 0;
  private stopped = false;

  constructor(
    private readonly run: string,
    private readonly hooks: StreamHooks,
  ) {}

  /** Begins behind an event; `0-0` is the beginning. */
  start(after = "0-0"): void {
    this.stopped = false;
    this.lastId = after;
    this.connect();
  }

  /** Ends everything; the owner hears nothing more. */
  stop(): void {
    this.stopped = true;
    this.close();
    clearTimeout(this.flushTimer ?? undefined);
    this.frames = [];
  }

  /** Ends a wait between attempts: the network came back, or the reader asks. */
  retryNow(): void {
    if (this.retryTimer !== null && !this.stopped) {
      clearTimeout(this.retryTimer);
      this.retryTimer = null;
      this.connect();
    }
  }

  private connect(): void {
    this.close();
    const source = this.hooks.open(streamPath(this.run, this.lastId));
    this.source = source;
    // A closed source may still deliver what it had queued; only the current one counts.
    const on = (kind: string, act: (frame: Frame) => void) =>
      source.addEventListener(kind, (frame) => {
        if (source === this.source) {
          act(frame);
        }
      });
    on("open", () => this.to("catching-up", ""));
    on("error", () => this.broken(source));
    for (const kind of [...CHANNELS, "gap"]) {
      on(kind, (frame) => this.take(frame));
    }
    on("state", (frame) => this.hooks.changed(frame.data));
    on("ready", () => {
      this.failures = 0;
      this.flush();
      this.to("live", "");
    });
    on("degraded", (frame) => {
      const event = parseEvent(frame.data);
      this.to("degraded", event.message ?? `${event.what ?? "a store"} is not available`);
    });
    on("closing", (frame) => this.to("draining", parseEvent(frame.data).reason ?? ""));
    on("end", (frame) => {
      this.take(frame);
      this.ended();
    });
  }

  private close(): void {
    this.source?.close();
    this.source = null;
    clearTimeout(this.retryTimer ?? undefined);
    this.retryTimer = null;
  }

  private ended(): void {
    this.close();
    this.flush();
    this.to("ended", "");
  }

  private broken(source: Source): void {
    if (source.readyState !== CLOSED) {
      // A drained server has said that it goes: that is the more telling state until the next one answers.
      if (this.state !== "draining") {
        this.to("reconnecting", "");
      }
      return;
    }
    this.close();
    this.to("reconnecting", "");
    this.hooks.diagnose(this.lastId).then(
      (diagnosis) => this.diagnosed(diagnosis),
      () => this.diagnosed({ act: "retry", why: "" }),
    );
  }

  private diagnosed(diagnosis: Diagnosis): void {
    if (this.stopped || this.source !== null) {
      return;
    }
    if (diagnosis.act === "ended") {
      this.ended();
      return;
    }
    if (diagnosis.act === "stop") {
      this.flush();
      this.to("failed", diagnosis.why);
      return;
    }
    this.to("reconnecting", diagnosis.why);
    const most = Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** this.failures);
    this.failures += 1;
    this.retryTimer = setTimeout(
      () => {
        this.retryTimer = null;
        this.connect();
      },
      most * (0.5 + this.hooks.random() / 2),
    );
  }

  private take(frame: Frame): void {
    if (frame.lastEventId !== "") {
      this.lastId = frame.lastEventId;
    }
    this.frames.push(frame.data);
    if (this.frames.length >= FLUSH_EVENTS) {
      this.flush();
    } else if (this.flushTimer === null) {
      const wait = Math.max(0, this.flushedAt + FLUSH_MS - Date.now());
      this.flushTimer = setTimeout(() => this.flush(), wait);
    }
  }

  private flush(): void {
    clearTimeout(this.flushTimer ?? undefined);
    this.flushTimer = null;
    this.flushedAt = Date.now();
    if (this.frames.length > 0) {
      const frames = this.frames;
      this.frames = [];
      this.hooks.events(frames.map(parseEvent));
    }
  }

  private to(state: LinkState, detail: string): void {
    if (this.state !== state || this.detail !== detail) {
      this.state = state;
      this.detail = detail;
      this.hooks.state(state, detail);
    }
  }
}
