// Groups of rows that can be folded under a header, and which rows are shown because of them.
//
// A group that its producer wants folded is folded when it has ended: while it goes on it is what is to be seen. One that holds
// errors, or is cut off by the end of all, stays open; and what the reader chose holds.
//
// Groups nest. One of the same id as an open one ends that first, with all in it; a row dropped from the page takes its group
// along if it is the header, and what was folded under it is shown. A group knows its rows by their numbers, so rows that
// come or go cost nothing here; a snapshot of what is shown costs one step per group.

import type { GroupEvent } from "./event";
import { Ring } from "./ring";

export class Group {
  folded = false;
  private chosen = false;
  /** The number of the first row behind it; null while it goes on. */
  end: number | null = null;
  /** Rows in it that tell of errors: folded ones must not hide them. */
  errors = 0;

  constructor(
    readonly id: string,
    readonly title: string,
    /** The number of its header. */
    public header: number,
    readonly muted: boolean,
    private readonly collapsed: boolean,
  ) {}

  /** The reader, or its producer, wants it the other way. */
  toggle(): void {
    this.folded = !this.folded;
    this.chosen = true;
  }

  /** It has ended by itself. */
  close(end: number): void {
    this.end = end;
    if (!this.chosen) {
      this.folded = this.collapsed && this.errors === 0;
    }
  }

  /** Its rows get other numbers. */
  move(by: number): void {
    this.header += by;
    this.end = this.end === null ? null : this.end + by;
  }

  /** Its producer wants it open. */
  unfold(): void {
    this.folded = false;
    this.chosen = true;
  }

  /** How many rows are in it, given the number of the next row of all. */
  rows(end: number): number {
    return (this.end ?? end) - this.header - 1;
  }
}

export class Groups {
  private readonly all = new Ring<Group>();
  private open: Group[] = [];

  get depth(): number {
    return this.open.length;
  }

  start(event: GroupEvent, header: number): Group {
    const group = new Group(event.id, event.title ?? event.id, header, event.muted === true, event.collapsed === true);
    this.all.push(group);
    this.open.push(group);
    return group;
  }

  /** Ends the group of this id and all in it; `end` is the number of the next row. */
  end(id: string, end: number): void {
    const at = this.open.findLastIndex((group) => group.id === id);
    for (const group of at >= 0 ? this.open.splice(at) : []) {
      group.close(end);
    }
  }

  finish(end: number): void {
    for (const group of this.open.splice(0)) {
      group.end = end;
    }
  }

  unfold(id: string): void {
    this.open.findLast((open) => open.id === id)?.unfold();
  }

  error(): void {
    for (const group of this.open) {
      group.errors += 1;
    }
  }

  /** Forgets the groups whose header is not held any more. */
  drop(first: number): void {
    while ((this.all.get(this.all.first)?.header ?? first) < first) {
      this.all.shift();
    }
  }

  /** Forgets what is of rows from `end` on, which are not held any more. Nothing may be open. */
  dropEnd(end: number): void {
    while ((this.all.get(this.all.end - 1)?.header ?? -Infinity) >= end) {
      this.all.pop();
    }
    for (let at = this.all.first; at < this.all.end; at += 1) {
      const group = this.all.get(at);
      if (group?.end != null && group.end > end) {
        group.end = end;
      }
    }
  }

  /** Takes over groups of rows that were put in front, whose numbers move by `by`. */
  prepend(older: Groups, by: number): void {
    const groups: Group[] = [];
    for (let at = older.all.first; at < older.all.end; at += 1) {
      const group = older.all.get(at);
      if (group !== undefined) {
        group.move(by);
        groups.push(group);
      }
    }
    this.all.prepend(groups);
  }

  shown(first: number, end: number): Shown {
    const hidden: Range[] = [];
    let before = 0;
    let until = first;
    for (let at = this.all.first; at < this.all.end; at += 1) {
      const group = this.all.get(at);
      if (group?.folded && group.header >= until) {
        until = group.end ?? end;
        if (until > group.header + 1) {
          hidden.push({ from: group.header + 1, to: until, before });
          before += until - group.header - 1;
        }
      }
    }
    return new Shown(first, end, hidden, before);
  }
}

interface Range {
  readonly from: number;
  readonly to: number;
  /** How many rows are hidden before it. */
  readonly before: number;
}

/** Which rows are shown at one moment: those from `first` to `end` without some ranges, in order. */
export class Shown {
  constructor(
    readonly first: number,
    readonly end: number,
    private readonly hidden: readonly Range[],
    private readonly hiddenRows: number,
  ) {}

  get count(): number {
    return this.end - this.first - this.hiddenRows;
  }

  /** The number of the row at this place, counted from 0. */
  rowAt(place: number): number {
    const range = this.last((range) => range.from - this.first - range.before <= place);
    return this.first + place + (range === undefined ? 0 : range.before + range.to - range.from);
  }

  /** The place of a row; of a hidden one, that of the header it is hidden under. */
  placeOf(number: number): number {
    const inside = Math.min(Math.max(number, this.first), this.end);
    const range = this.last((range) => range.from <= inside);
    if (range === undefined) {
      return inside - this.first;
    }
    const behind = Math.max(range.to, inside) - range.to;
    const header = range.from - 1 - this.first - range.before;
    return inside < range.to ? header : header + 1 + behind;
  }

  private last(fits: (range: Range) => boolean): Range | undefined {
    let low = 0;
    let high = this.hidden.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (fits(this.hidden[middle] as Range)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return this.hidden[low - 1];
  }
}
