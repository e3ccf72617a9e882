// Watches one run: keeps its description, its logs and its live connection in step. It opens on the
// last lines, whatever the length of the run, and loads older lines when the reader asks for them.
//
// The stream reports what happens. The description (status of the run, seal, counts) is loaded
// again REFRESH_SOON_MS after a status event, and every REFRESH_MS until the run is sealed, while
// the page is visible. Nothing here draws: the hook `changed` runs after every change, at most
// about 20 times a second while lines come in.

import { ApiError, request } from "./api";
import { isFinal, type RunEvent } from "./event";
import { getPage, HistoryPager } from "./history";
import type { VariationLog } from "./log";
import { RunStore } from "./run_store";
import { getRun, isDeletion, isRedaction, type Run, withUpdate } from "./runs";
import { type ConnectionState, type Diagnosis, type EventSourceLike, RunStream } from "./stream";
import { streamPath } from "./url";

const REFRESH_MS = 4000;
const REFRESH_SOON_MS = 150;

const DELETED = "this run was deleted";

export interface RunWatchHooks {
  changed(): void;
  signedOut(): void;
  /** Events that were received are not what they were: the run is to be watched anew. */
  redacted(): void;
}

export class RunWatch {
  readonly store = new RunStore();
  readonly stream: RunStream;
  run: Run | null = null;
  private readonly pagers = new Map<VariationLog, HistoryPager>();
  private refreshTimer: ReturnType<typeof setTimeout> | null = null;
  private stopped = false;

  constructor(
    readonly id: string,
    private readonly hooks: RunWatchHooks,
  ) {
    this.stream = new RunStream(id, {
      open: (url) => new EventSource(url) as EventSourceLike,
      diagnose: (after) => this.diagnose(after),
      events: (batch) => this.applyEvents(batch),
      stateChanged: (state) => this.onConnectionState(state),
      runUpdated: (data) => this.onRunUpdate(data),
      random: Math.random,
    });
  }

  start(): void {
    void this.open();
    this.scheduleRefresh(0);
    globalThis.addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
  }

  /** The pager of a log, which loads what lies outside the log's window. */
  pager(log: VariationLog): HistoryPager {
    let pager = this.pagers.get(log);
    if (pager === undefined) {
      pager = new HistoryPager(this.id, log, () => this.hooks.changed());
      this.pagers.set(log, pager);
    }
    return pager;
  }

  /** Loads the last events of the run, then connects to the live stream after them. */
  private async open(): Promise<void> {
    let after: string | undefined;
    try {
      const page = await getPage(this.id, null, { before: "end" });
      if (this.stopped) {
        return;
      }
      this.store.open(page.events, page.older);
      after = page.newer;
      this.hooks.changed();
    } catch {
      // The stream then starts at the beginning of the run, and diagnoses the cause if it fails
      // too.
    }
    if (!this.stopped) {
      this.stream.start(after);
    }
  }

  stop(): void {
    this.stopped = true;
    this.stream.stop();
    clearTimeout(this.refreshTimer ?? undefined);
    globalThis.removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
  }

  private wake = (): void => {
    if (document.visibilityState === "visible") {
      this.stream.retryNow();
      this.scheduleRefresh(0);
    }
  };

  private applyEvents(batch: RunEvent[]): void {
    this.store.apply(batch);
    if (batch.some((event) => event.kind === "status")) {
      this.scheduleRefresh(REFRESH_SOON_MS);
    }
    this.hooks.changed();
  }

  private onConnectionState(state: ConnectionState): void {
    if (state === "ended") {
      this.store.finish();
      this.scheduleRefresh(0);
    }
    this.hooks.changed();
  }

  /**
   * Shows the update at once; the description has the rest, such as the status of each variation.
   */
  private onRunUpdate(data: string): void {
    if (isDeletion(data)) {
      this.onDeleted();
      return;
    }
    if (isRedaction(data)) {
      this.hooks.redacted();
      return;
    }
    if (this.run !== null) {
      this.run = withUpdate(this.run, data);
    }
    this.scheduleRefresh(0);
    this.hooks.changed();
  }

  /** Shows nothing of a deleted run but that it was deleted. */
  private onDeleted(): void {
    clearTimeout(this.refreshTimer ?? undefined);
    this.refreshTimer = null;
    this.run = null;
    this.stream.fail(DELETED);
    this.hooks.changed();
  }

  private scheduleRefresh(delayMs: number): void {
    clearTimeout(this.refreshTimer ?? undefined);
    this.refreshTimer = setTimeout(() => this.refresh(), delayMs);
  }

  private async refresh(): Promise<void> {
    this.refreshTimer = null;
    if (document.visibilityState === "visible" || this.run === null) {
      try {
        const run = await getRun(this.id);
        if (this.stopped) {
          return;
        }
        this.run = run;
        this.hooks.changed();
      } catch (error) {
        if (error instanceof ApiError && error.status === 401 && !this.stopped) {
          this.hooks.signedOut();
        }
        if (error instanceof ApiError && error.status === 410 && !this.stopped) {
          this.onDeleted();
        }
        // The connection state shows any other error; the last description stays.
      }
    }
    if (!this.stopped && this.refreshTimer === null && !this.run?.sealed && this.stream.state !== "failed") {
      this.scheduleRefresh(REFRESH_MS);
    }
  }

  /** EventSource does not report the status of a refused connection, so this requests the run. */
  private async diagnose(after: string): Promise<Diagnosis> {
    try {
      const run = await getRun(this.id);
      this.run = run;
      if (isFinal(run.status) && (await this.isOver(after))) {
        return { action: "end" };
      }
      return { action: "retry", reason: "" };
    } catch (error) {
      const status = error instanceof ApiError ? error.status : 0;
      if (status === 401) {
        this.hooks.signedOut();
        return { action: "stop", reason: "signed out" };
      }
      if (status === 403) {
        return { action: "stop", reason: "this session has no access to this run" };
      }
      if (status === 410) {
        this.run = null;
        return { action: "stop", reason: DELETED };
      }
      if (status === 404 || status === 400) {
        return { action: "stop", reason: "no such run" };
      }
      return { action: "retry", reason: (error as Error).message };
    }
  }

  /** The stream answers 204 when the run is stored and nothing follows the event `after`. */
  private async isOver(after: string): Promise<boolean> {
    const abort = new AbortController();
    const response = await request(streamPath(this.id, after), {
      headers: { Accept: "text/event-stream" },
      signal: abort.signal,
    });
    // Only the status matters; a stream that opens must not stay open beside the next one.
    abort.abort();
    return response.status === 204;
  }
}
