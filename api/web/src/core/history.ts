// Loads what lies outside the window of a variation's log, a page at a time: older events, newer
// events, and any other position of the run.
//
// One request at a time; going to another position supersedes a request that is under way. A window
// that reaches the end of the run goes on live: the log buffers events that arrive while the last
// page is on its way, and joins them to it by their ids.

import { getJson } from "./api";
import { cursorBefore, type RunEvent } from "./event";
import type { VariationLog } from "./log";
import { eventsPath, type PagePosition } from "./url";

export interface EventPage {
  events: RunEvent[];
  older: string | null;
  newer: string;
  more: boolean;
  ended: boolean;
}

/** Events of the page that a run opens with, and of each older or newer page. */
export const PAGE_EVENTS = 1000;
/** Events that are loaded before a position that the reader went to. */
const LEAD_EVENTS = 300;
/** Above this, the window drops rows at its far end. */
export const MAX_WINDOW_ROWS = 20_000;

export type Loading = "older" | "newer" | "position" | null;

/** Where in a run the reader wants to go. */
export type LogPosition = { line: number } | { at: number } | { id: string };

export function getPage(
  run: string,
  variation: number | null,
  position: PagePosition,
  limit = PAGE_EVENTS,
): Promise<EventPage> {
  return getJson<EventPage>(eventsPath(run, variation, position, limit));
}

export class HistoryPager {
  loading: Loading = null;
  problem = "";
  /** Counts requests, so that a superseded one recognises itself. */
  private generation = 0;

  constructor(
    private readonly run: string,
    private readonly log: VariationLog,
    private readonly changed: () => void,
    private readonly get: typeof getPage = getPage,
  ) {}

  /** Loads the page before the window, if there is one and no request is under way. */
  async loadOlder(): Promise<void> {
    const before = this.log.older;
    if (before !== null && this.loading === null && this.problem === "") {
      await this.load("older", async (isCurrent) => {
        const page = await this.fetchPage({ before });
        if (isCurrent() && this.log.older === before) {
          this.log.prepend(page.events);
          this.log.older = page.older;
          this.log.trimEnd(MAX_WINDOW_ROWS);
        }
      });
    }
  }

  /** Loads the page after the window, if there is one and no request is under way. */
  async loadNewer(): Promise<void> {
    const after = this.log.newer;
    if (after !== null && this.loading === null && this.problem === "") {
      await this.load("newer", async (isCurrent) => {
        this.log.startBuffering();
        const page = await this.fetchPage({ after });
        if (isCurrent() && this.log.newer === after) {
          this.append(page);
          this.log.trimStart(MAX_WINDOW_ROWS, Infinity);
        }
      });
    }
  }

  /** Moves the window to another position, and highlights the row there. */
  async goTo(position: LogPosition): Promise<void> {
    await this.load("position", async (isCurrent) => {
      const from: PagePosition = "id" in position ? { after: cursorBefore(position.id) } : position;
      this.log.startBuffering();
      const page = await this.fetchPage(from);
      const lead = page.older === null ? null : await this.fetchPage({ before: page.older }, LEAD_EVENTS);
      if (isCurrent()) {
        this.log.reset();
        this.append(page);
        const { first } = this.log.rows;
        if (lead !== null) {
          this.log.prepend(lead.events);
        }
        this.log.older = lead === null ? null : lead.older;
        this.log.target = Math.min(first, this.log.rows.end - 1);
        this.log.hit = this.log.target;
      }
    });
  }

  /** Moves the window to the end of the run. */
  async goToEnd(): Promise<void> {
    if (this.log.newer !== null) {
      await this.load("position", async (isCurrent) => {
        this.log.startBuffering();
        const page = await this.fetchPage({ before: "end" });
        if (isCurrent()) {
          this.log.reset();
          this.append(page);
          this.log.older = page.older;
        }
      });
    }
  }

  /** Allows loading again: after a problem, nothing is loaded until the reader retries. */
  retry(): void {
    this.problem = "";
    this.changed();
  }

  private append(page: EventPage): void {
    this.log.newer = page.newer;
    for (const event of this.ofThisVariation(page.events)) {
      this.log.append(event);
    }
    if (!page.more) {
      this.log.joinLive(page.newer);
    }
  }

  private async fetchPage(position: PagePosition, limit = PAGE_EVENTS): Promise<EventPage> {
    const page = await this.get(this.run, this.log.variation, position, limit);
    return { ...page, events: this.ofThisVariation(page.events) };
  }

  /**
   * The gateway sends every gap, whatever the channels; gaps of other variations are left out here.
   */
  private ofThisVariation(events: RunEvent[]): RunEvent[] {
    const { variation } = this.log;
    return events.filter((event) => event.variation === undefined || event.variation === variation);
  }

  private async load(what: Loading, work: (isCurrent: () => boolean) => Promise<void>): Promise<void> {
    this.generation += 1;
    const { generation } = this;
    const isCurrent = () => this.generation === generation;
    this.loading = what;
    this.problem = "";
    this.changed();
    try {
      await work(isCurrent);
    } catch (error) {
      if (isCurrent()) {
        this.problem = (error as Error).message;
      }
    }
    if (isCurrent()) {
      this.loading = null;
      this.changed();
    }
  }
}
