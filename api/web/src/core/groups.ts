// Groups of rows that can be folded under a header, and which rows stay unfolded.
//
// A group that its producer marks as collapsed is folded when it has ended; while it goes on, its
// rows are what the reader wants to see. A group stays open if it holds errors or if the log ends
// in the middle of it. A choice of the reader overrules all of this.
//
// Groups nest. A group with the id of an open one first ends that one, with every group in it. When
// the header row is dropped from the log, its group is dropped too and its rows are no longer
// hidden. A group knows its rows by their numbers, so adding or dropping rows costs nothing here; a
// snapshot of the unfolded rows costs one step per group.

import type { GroupEvent } from "./event";
import { Ring } from "./ring";

export class Group {
  folded = false;
  private chosen = false;
  /** The number of the first row after the group; null while it goes on. */
  end: number | null = null;
  /** Error rows in the group: folding must not hide them without a trace. */
  errors = 0;

  constructor(
    readonly id: string,
    readonly title: string,
    /** The row number of its header. */
    public header: number,
    readonly muted: boolean,
    private readonly collapsed: boolean,
  ) {}

  /** The reader folds or unfolds the group. */
  toggle(): void {
    this.folded = !this.folded;
    this.chosen = true;
  }

  /** The producer ends the group. */
  close(end: number): void {
    this.end = end;
    if (!this.chosen) {
      this.folded = this.collapsed && this.errors === 0;
    }
  }

  renumber(by: number): void {
    this.header += by;
    this.end = this.end === null ? null : this.end + by;
  }

  /** The producer asks for the group to be open. */
  unfold(): void {
    this.folded = false;
    this.chosen = true;
  }

  /** The number of rows in the group; `end` is the number that the log's next row will get. */
  rowCount(end: number): number {
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

  /** Ends the group with this id and every group in it; `end` is the number of the next row. */
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

  countError(): void {
    for (const group of this.open) {
      group.errors += 1;
    }
  }

  /** Drops the groups whose header lies before the row `first`. */
  dropStart(first: number): void {
    while ((this.all.get(this.all.first)?.header ?? first) < first) {
      this.all.shift();
    }
  }

  /**
   * Drops the groups from row `end` on, and shortens those that reach beyond it. None may be open.
   */
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

  /** Takes over the groups of rows that were put in front, whose numbers change by `by`. */
  prepend(older: Groups, by: number): void {
    const groups: Group[] = [];
    for (let at = older.all.first; at < older.all.end; at += 1) {
      const group = older.all.get(at);
      if (group !== undefined) {
        group.renumber(by);
        groups.push(group);
      }
    }
    this.all.prepend(groups);
  }

  unfoldedRows(first: number, end: number): UnfoldedRows {
    const folded: FoldedRange[] = [];
    let hiddenBefore = 0;
    let until = first;
    for (let at = this.all.first; at < this.all.end; at += 1) {
      const group = this.all.get(at);
      if (group?.folded && group.header >= until) {
        until = group.end ?? end;
        if (until > group.header + 1) {
          folded.push({ from: group.header + 1, to: until, hiddenBefore });
          hiddenBefore += until - group.header - 1;
        }
      }
    }
    return new UnfoldedRows(first, end, folded, hiddenBefore);
  }
}

interface FoldedRange {
  readonly from: number;
  readonly to: number;
  /** How many rows are hidden before this range. */
  readonly hiddenBefore: number;
}

/** A snapshot of the rows from `first` to `end` without the folded ranges; index 0 is the first. */
export class UnfoldedRows {
  constructor(
    readonly first: number,
    readonly end: number,
    private readonly folded: readonly FoldedRange[],
    private readonly hiddenRows: number,
  ) {}

  get count(): number {
    return this.end - this.first - this.hiddenRows;
  }

  /** The number of the row at an index. */
  rowAt(index: number): number {
    const range = this.lastRangeWhere((range) => range.from - this.first - range.hiddenBefore <= index);
    return this.first + index + (range === undefined ? 0 : range.hiddenBefore + range.to - range.from);
  }

  /** The index of a row; for a hidden row, the index of the header that hides it. */
  indexOf(number: number): number {
    const inside = Math.min(Math.max(number, this.first), this.end);
    const range = this.lastRangeWhere((range) => range.from <= inside);
    if (range === undefined) {
      return inside - this.first;
    }
    const rowsAfter = Math.max(range.to, inside) - range.to;
    const header = range.from - 1 - this.first - range.hiddenBefore;
    return inside < range.to ? header : header + 1 + rowsAfter;
  }

  /** A binary search: `matches` is true for all ranges up to the result, and false after it. */
  private lastRangeWhere(matches: (range: FoldedRange) => boolean): FoldedRange | undefined {
    let low = 0;
    let high = this.folded.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (matches(this.folded[middle] as FoldedRange)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return this.folded[low - 1];
  }
}
