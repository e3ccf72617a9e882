// A search in the whole run, newest lines first, in bounded requests: each answer is limited and
// says how far the search has come.

import { getJson } from "./api";
import type { LogPosition } from "./history";
import { type SearchQuery, searchPath } from "./url";

export interface Match {
  id: string;
  kind: string;
  variation: number;
  time: number;
  level?: string;
  text: string;
  cut: boolean;
  /** The matching ranges of `text`, each from and to. */
  places: [number, number][];
}

export interface SearchAnswer {
  matches: Match[];
  cursor: string;
  done: boolean;
  events: number;
}

const MAX_PAGE_MATCHES = 100;
/** Requests per call of `loadMore`. The page shows the matches after each. */
const MAX_REQUESTS = 20;

export class RunSearch {
  matches: Match[] = [];
  done = false;
  busy = false;
  problem = "";
  /** Events searched so far. */
  events = 0;
  private cursor = "end";
  private stopped = false;

  constructor(
    private readonly run: string,
    readonly query: SearchQuery,
    private readonly changed: () => void,
    private readonly get: (path: string) => Promise<SearchAnswer> = getJson,
  ) {}

  /** Searches until there are more matches, the run is searched to its beginning, or `stop`. */
  async loadMore(): Promise<void> {
    if (this.busy || this.done) {
      return;
    }
    this.busy = true;
    this.problem = "";
    const before = this.matches.length;
    for (
      let request = 0;
      request < MAX_REQUESTS && this.matches.length === before && !this.done && !this.stopped;
      request += 1
    ) {
      this.changed();
      try {
        this.add(await this.get(searchPath(this.run, this.query, this.cursor, MAX_PAGE_MATCHES)));
      } catch (error) {
        this.problem = (error as Error).message;
        break;
      }
    }
    this.busy = false;
    this.changed();
  }

  stop(): void {
    this.stopped = true;
  }

  private add(answer: SearchAnswer): void {
    this.matches = [...this.matches, ...answer.matches];
    this.cursor = answer.cursor;
    this.done = answer.done;
    this.events += answer.events;
  }
}

/** Splits the text of a match into the parts that match (`hit`) and the text around them. */
export function highlightMatch(match: Match): { text: string; hit: boolean }[] {
  const parts: { text: string; hit: boolean }[] = [];
  let end = 0;
  for (const [from, to] of match.places) {
    parts.push({ text: match.text.slice(end, from), hit: false }, { text: match.text.slice(from, to), hit: true });
    end = to;
  }
  parts.push({ text: match.text.slice(end), hit: false });
  return parts.filter((part) => part.text !== "");
}

/** Parses a position that the reader has typed: the number of a line, or a time. */
export function parsePosition(text: string): Exclude<LogPosition, { id: string }> | null {
  const trimmed = text.trim().replace(/,/g, "");
  if (/^\d{1,12}$/.test(trimmed)) {
    return Number(trimmed) > 0 ? { line: Number(trimmed) } : null;
  }
  const at = Date.parse(text.trim());
  return Number.isNaN(at) ? null : { at };
}
