// What of a variation lies outside its window, had a page at a time: older and newer events, and any other place of the run.
//
// One request at a time; a new place takes over from what is under way. A window that was moved on to where the run ends
// goes on live: what comes while the last page is on its way is held and joined to it by its ids.

import { getJson } from "./api";
import { cursorBefore, type RunEvent } from "./event";
import type { Lane } from "./log";
import { eventsPath, type Place } from "./url";

export interface EventPage {
  events: RunEvent[];
  older: string | null;
  newer: string;
  more: boolean;
  ended: boolean;
}

/** Events that the page opens with, and of a page behind or before them. */
export const PAGE_EVENTS = 1000;
/** Events before the place that was asked for. */
const LEAD_EVENTS = 300;
/** Rows above which the far end of a window is dropped. */
export const WINDOW_ROWS = 20_000;

export type Loading = "older" | "newer" | "place" | null;

export function getPage(run: string, variation: number | null, place: Place, limit = PAGE_EVENTS): Promise<EventPage> {
  return getJson<EventPage>(eventsPath(run, variation, place, limit));
}

export class Past {
  loading: Loading = null;
  problem = "";
  private turn = 0;

  constructor(
    private readonly run: string,
    private readonly lane: Lane,
    private readonly changed: () => void,
    private readonly get: typeof getPage = getPage,
  ) {}

  /** Loads what comes before the window, if anything does and nothing else is being loaded. */
  async older(): Promise<void> {
    const before = this.lane.older;
    if (before !== null && this.loading === null && this.problem === "") {
      await this.load("older", async (isCurrent) => {
        const page = await this.page({ before });
        if (isCurrent() && this.lane.older === before) {
          this.lane.prepend(page.events);
          this.lane.older = page.older;
          this.lane.trimEnd(WINDOW_ROWS);
        }
      });
    }
  }

  /** Loads what comes behind the window. */
  async newer(): Promise<void> {
    const after = this.lane.newer;
    if (after !== null && this.loading === null && this.problem === "") {
      await this.load("newer", async (isCurrent) => {
        this.lane.hold();
        const page = await this.page({ after });
        if (isCurrent() && this.lane.newer === after) {
          this.append(page);
          this.lane.trim(WINDOW_ROWS, Infinity);
        }
      });
    }
  }

  /** Moves the window to another place, and marks the row that was asked for. */
  async show(place: { line: number } | { at: number } | { id: string }): Promise<void> {
    await this.load("place", async (isCurrent) => {
      const from: Place = "id" in place ? { after: cursorBefore(place.id) } : place;
      this.lane.hold();
      const page = await this.page(from);
      const lead = page.older === null ? null : await this.page({ before: page.older }, LEAD_EVENTS);
      if (isCurrent()) {
        this.lane.reset();
        this.append(page);
        const { first } = this.lane.rows;
        if (lead !== null) {
          this.lane.prepend(lead.events);
        }
        this.lane.older = lead === null ? null : lead.older;
        this.lane.target = Math.min(first, this.lane.rows.end - 1);
        this.lane.hit = this.lane.target;
      }
    });
  }

  /** Moves the window to the end. */
  async end(): Promise<void> {
    if (this.lane.newer !== null) {
      await this.load("place", async (isCurrent) => {
        this.lane.hold();
        const page = await this.page({ before: "end" });
        if (isCurrent()) {
          this.lane.reset();
          this.append(page);
          this.lane.older = page.older;
        }
      });
    }
  }

  /** After a problem nothing is loaded until the reader asks again. */
  retry(): void {
    this.problem = "";
    this.changed();
  }

  private append(page: EventPage): void {
    this.lane.newer = page.newer;
    for (const event of this.own(page.events)) {
      this.lane.take(event);
    }
    if (!page.more) {
      this.lane.attach(page.newer);
    }
  }

  private async page(place: Place, limit = PAGE_EVENTS): Promise<EventPage> {
    const page = await this.get(this.run, this.lane.variation, place, limit);
    return { ...page, events: this.own(page.events) };
  }

  /** Gaps come whatever is asked for; one that names another variation is of no interest here. */
  private own(events: RunEvent[]): RunEvent[] {
    const { variation } = this.lane;
    return events.filter((event) => event.variation === undefined || event.variation === variation);
  }

  private async load(what: Loading, work: (isCurrent: () => boolean) => Promise<void>): Promise<void> {
    this.turn += 1;
    const { turn } = this;
    const isCurrent = () => this.turn === turn;
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
