// A search in the whole run, newest lines first, asked for in pieces: each answer is bounded and says how far it came.

import { getJson } from "./api";
import { type SearchFor, searchPath } from "./url";

export interface Match {
  id: string;
  kind: string;
  variation: number;
  time: number;
  level?: string;
  text: string;
  cut: boolean;
  /** Where in `text`, from and to. */
  places: [number, number][];
}

export interface SearchAnswer {
  matches: Match[];
  cursor: string;
  done: boolean;
  events: number;
}

const MATCHES_AT_ONCE = 100;
/** Pieces of one press of the button: what they found is shown after each. */
const MOST_PIECES = 20;

export class Find {
  matches: Match[] = [];
  done = false;
  busy = false;
  problem = "";
  /** Events looked at so far. */
  events = 0;
  private cursor = "end";
  private stopped = false;

  constructor(
    private readonly run: string,
    readonly what: SearchFor,
    private readonly changed: () => void,
    private readonly get: (path: string) => Promise<SearchAnswer> = getJson,
  ) {}

  /** Searches on until something is found, nothing is left, or it was stopped. */
  async more(): Promise<void> {
    if (this.busy || this.done) {
      return;
    }
    this.busy = true;
    this.problem = "";
    const before = this.matches.length;
    for (
      let piece = 0;
      piece < MOST_PIECES && this.matches.length === before && !this.done && !this.stopped;
      piece += 1
    ) {
      this.changed();
      try {
        this.take(await this.get(searchPath(this.run, this.what, this.cursor, MATCHES_AT_ONCE)));
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

  private take(answer: SearchAnswer): void {
    this.matches = [...this.matches, ...answer.matches];
    this.cursor = answer.cursor;
    this.done = answer.done;
    this.events += answer.events;
  }
}

/** Cuts the text of a match into what is around its places and what is in them. */
export function highlighted(match: Match): { text: string; hit: boolean }[] {
  const parts: { text: string; hit: boolean }[] = [];
  let end = 0;
  for (const [from, to] of match.places) {
    parts.push({ text: match.text.slice(end, from), hit: false }, { text: match.text.slice(from, to), hit: true });
    end = to;
  }
  parts.push({ text: match.text.slice(end), hit: false });
  return parts.filter((part) => part.text !== "");
}

/** What a reader means who wants to go somewhere: a line by its number, or a moment. */
export function parsePlace(text: string): { line: number } | { at: number } | null {
  const trimmed = text.trim().replace(/,/g, "");
  if (/^\d{1,12}$/.test(trimmed)) {
    return Number(trimmed) > 0 ? { line: Number(trimmed) } : null;
  }
  const at = Date.parse(text.trim());
  return Number.isNaN(at) ? null : { at };
}
