// The live connection of one run: keeps it open, names its state, and passes on events in batches.
//
// EventSource reconnects by itself with `Last-Event-ID`. It gives up after any answer that is not
// an event stream. RunStream then finds out why (`diagnose`) and connects again after the last
// event that it has seen, with a jittered backoff of 1 to 30 s.
//
// Events wait unparsed in an array and are passed on at most every FLUSH_MS, the first of a quiet
// stream at once. A timer does that, not an animation frame, because a hidden tab has none. The
// array holds at most FLUSH_EVENTS, however rarely a timer fires.

import { EVENT_KINDS, parseEvent, type RunEvent } from "./event";
import { streamPath } from "./url";

export const FLUSH_MS = 50;
const FLUSH_EVENTS = 5000;
const MIN_RETRY_MS = 1000;
const MAX_RETRY_MS = 30_000;

export type ConnectionState =
  | "connecting"
  | "catching-up"
  | "live"
  | "reconnecting"
  | "degraded"
  | "draining"
  | "ended"
  | "failed";

/**
 * What to do after the gateway has refused the stream. `end`: the run is over and every event of it
 * was received. `stop`: another attempt would fail too.
 */
export type Diagnosis = { action: "retry"; reason: string } | { action: "end" } | { action: "stop"; reason: string };

export interface Frame {
  readonly data: string;
  readonly lastEventId: string;
}

/** The part of EventSource that RunStream uses; tests implement it as well. */
export interface EventSourceLike {
  readonly readyState: number;
  addEventListener(kind: string, listener: (frame: Frame) => void): void;
  close(): void;
}

export interface StreamHooks {
  open(url: string): EventSourceLike;
  diagnose(after: string): Promise<Diagnosis>;
  events(batch: RunEvent[]): void;
  stateChanged(state: ConnectionState, detail: string): void;
  /** The run was lost or came back, which is not stored as an event of the run. */
  runUpdated(data: string): void;
  /** 0 <= n < 1 */
  random(): number;
}

/** `EventSource.CLOSED` */
const CLOSED_STATE = 2;

export class RunStream {
  state: ConnectionState = "connecting";
  detail = "";
  private source: EventSourceLike | null = null;
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

  /** Starts after an event; `0-0` is the beginning. */
  start(after = "0-0"): void {
    this.stopped = false;
    this.lastId = after;
    this.connect();
  }

  /** Closes the connection; no hook runs afterwards. */
  stop(): void {
    this.stopped = true;
    this.close();
    clearTimeout(this.flushTimer ?? undefined);
    this.frames = [];
  }

  /** Closes the connection, drops what waits, and shows why; nothing reconnects. */
  fail(reason: string): void {
    this.close();
    clearTimeout(this.flushTimer ?? undefined);
    this.flushTimer = null;
    this.frames = [];
    this.setState("failed", reason);
  }

  /** Cuts the backoff short: the network came back, or the page is visible again. */
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
    // A closed source may still deliver frames that it had queued; only the current one counts.
    const on = (kind: string, handle: (frame: Frame) => void) =>
      source.addEventListener(kind, (frame) => {
        if (source === this.source) {
          handle(frame);
        }
      });
    on("open", () => this.setState("catching-up", ""));
    on("error", () => this.onError(source));
    for (const kind of [...EVENT_KINDS, "gap"]) {
      on(kind, (frame) => this.receive(frame));
    }
    on("state", (frame) => this.hooks.runUpdated(frame.data));
    on("ready", () => {
      this.failures = 0;
      this.flush();
      this.setState("live", "");
    });
    on("degraded", (frame) => {
      const event = parseEvent(frame.data);
      this.setState("degraded", event.message ?? `${event.what ?? "a store"} is not available`);
    });
    on("closing", (frame) => this.setState("draining", parseEvent(frame.data).reason ?? ""));
    on("end", (frame) => {
      this.receive(frame);
      this.end();
    });
  }

  private close(): void {
    this.source?.close();
    this.source = null;
    clearTimeout(this.retryTimer ?? undefined);
    this.retryTimer = null;
  }

  private end(): void {
    this.close();
    this.flush();
    this.setState("ended", "");
  }

  private onError(source: EventSourceLike): void {
    if (source.readyState !== CLOSED_STATE) {
      // A draining server has announced that it closes: keep that state until another one answers.
      if (this.state !== "draining") {
        this.setState("reconnecting", "");
      }
      return;
    }
    this.close();
    this.setState("reconnecting", "");
    this.hooks.diagnose(this.lastId).then(
      (diagnosis) => this.onDiagnosis(diagnosis),
      () => this.onDiagnosis({ action: "retry", reason: "" }),
    );
  }

  private onDiagnosis(diagnosis: Diagnosis): void {
    if (this.stopped || this.source !== null) {
      return;
    }
    if (diagnosis.action === "end") {
      this.end();
      return;
    }
    if (diagnosis.action === "stop") {
      this.flush();
      this.setState("failed", diagnosis.reason);
      return;
    }
    this.setState("reconnecting", diagnosis.reason);
    const backoffMs = Math.min(MAX_RETRY_MS, MIN_RETRY_MS * 2 ** this.failures);
    this.failures += 1;
    this.retryTimer = setTimeout(
      () => {
        this.retryTimer = null;
        this.connect();
      },
      backoffMs * (0.5 + this.hooks.random() / 2),
    );
  }

  private receive(frame: Frame): void {
    if (frame.lastEventId !== "") {
      this.lastId = frame.lastEventId;
    }
    this.frames.push(frame.data);
    if (this.frames.length >= FLUSH_EVENTS) {
      this.flush();
    } else if (this.flushTimer === null) {
      const delayMs = Math.max(0, this.flushedAt + FLUSH_MS - Date.now());
      this.flushTimer = setTimeout(() => this.flush(), delayMs);
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

  private setState(state: ConnectionState, detail: string): void {
    if (this.state !== state || this.detail !== detail) {
      this.state = state;
      this.detail = detail;
      this.hooks.stateChanged(state, detail);
    }
  }
}
