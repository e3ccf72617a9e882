// One run being watched: its description, its lines, and the connection they come over, kept in step. It opens on the last
// lines, whatever the length of the run; what is older is had when the reader wants it.
//
// The stream tells what happens; the description (status of the run, seal, counts) is asked for again REFRESH_SOON_MS after
// a status event, and every REFRESH_MS until the run is sealed, while the page is visible. Nothing here draws: `changed` is
// called after every change, at most about 20 times a second while lines come in.

import { ApiError, request } from "./api";
import { isFinal, type RunEvent } from "./event";
import { getPage, Past } from "./history";
import type { Lane } from "./log";
import { RunStore } from "./run_store";
import { getRun, type Run, withUpdate } from "./runs";
import { type Diagnosis, type LinkState, RunStream, type Source } from "./stream";
import { streamPath } from "./url";

const REFRESH_MS = 4000;
const REFRESH_SOON_MS = 150;

export interface WatchHooks {
  changed(): void;
  signedOut(): void;
}

export class RunWatch {
  readonly store = new RunStore();
  readonly stream: RunStream;
  run: Run | null = null;
  private readonly pasts = new Map<Lane, Past>();
  private refreshTimer: ReturnType<typeof setTimeout> | null = null;
  private stopped = false;

  constructor(
    readonly id: string,
    private readonly hooks: WatchHooks,
  ) {
    this.stream = new RunStream(id, {
      open: (url) => new EventSource(url) as Source,
      diagnose: (after) => this.diagnose(after),
      events: (batch) => this.events(batch),
      state: (state) => this.moved(state),
      changed: (data) => this.updated(data),
      random: Math.random,
    });
  }

  start(): void {
    void this.open();
    this.refresh(0);
    globalThis.addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
  }

  /** What of a lane lies outside of its window. */
  past(lane: Lane): Past {
    let past = this.pasts.get(lane);
    if (past === undefined) {
      past = new Past(this.id, lane, () => this.hooks.changed());
      this.pasts.set(lane, past);
    }
    return past;
  }

  /** Begins with the last events of the run, and goes on live behind them. */
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
      // The stream asks for all of it then, and finds out what is wrong if something is.
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
      this.refresh(0);
    }
  };

  private events(batch: RunEvent[]): void {
    this.store.apply(batch);
    if (batch.some((event) => event.kind === "status")) {
      this.refresh(REFRESH_SOON_MS);
    }
    this.hooks.changed();
  }

  private moved(state: LinkState): void {
    if (state === "ended") {
      this.store.finish();
      this.refresh(0);
    }
    this.hooks.changed();
  }

  /** Shown at once; the description then says the rest, such as the status of each variation. */
  private updated(data: string): void {
    if (this.run !== null) {
      this.run = withUpdate(this.run, data);
    }
    this.refresh(0);
    this.hooks.changed();
  }

  private refresh(wait: number): void {
    clearTimeout(this.refreshTimer ?? undefined);
    this.refreshTimer = setTimeout(() => this.describe(), wait);
  }

  private async describe(): Promise<void> {
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
        // Anything else shows in the state of the connection; what is known of the run stays.
      }
    }
    if (!this.stopped && this.refreshTimer === null && !this.run?.sealed && this.stream.state !== "failed") {
      this.refresh(REFRESH_MS);
    }
  }

  /** EventSource does not tell the status it was refused with, so this asks in its place. */
  private async diagnose(after: string): Promise<Diagnosis> {
    try {
      const run = await getRun(this.id);
      this.run = run;
      if (isFinal(run.status) && (await this.isOver(after))) {
        return { act: "ended" };
      }
      return { act: "retry", why: "" };
    } catch (error) {
      const status = error instanceof ApiError ? error.status : 0;
      if (status === 401) {
        this.hooks.signedOut();
        return { act: "stop", why: "signed out" };
      }
      if (status === 403) {
        return { act: "stop", why: "this session may not see this run" };
      }
      if (status === 404 || status === 400) {
        return { act: "stop", why: "no such run" };
      }
      return { act: "retry", why: (error as Error).message };
    }
  }

  /** 204 on the stream says that the run is stored and nothing follows what was seen. */
  private async isOver(after: string): Promise<boolean> {
    const abort = new AbortController();
    const response = await request(streamPath(this.id, after), {
      headers: { Accept: "text/event-stream" },
      signal: abort.signal,
    });
    // Only the status is wanted; a stream that does answer must not stay open beside the one to come.
    abort.abort();
    return response.status === 204;
  }
}
