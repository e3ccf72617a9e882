// The log of one variation as a list of rows: output and log lines, notices and gaps, in the order
// of the events.
//
// Each stream (stdout, stderr, or one of several answers, by name) has a decoder, an escape reader
// and an open row. Chunks are joined into that row until a newline, even when rows of another
// stream arrive in between. A ring holds the rows; `trimStart` drops the oldest above the given
// limits. A row that was dropped while open is not written to again; its stream goes on in a new
// row.
//
// The rows are a window of the variation's history: the cursors `older` and `newer` say where more
// can be loaded on either side. While there is more behind the window, it is detached from the live
// end: live events then only update the status and the progress. While a page is on its way, the
// log also buffers them until the window reaches the live end (`startBuffering`, `joinLive`).
//
// A chunk that marks a group is not shown as text: the start of a group is a header row, under
// which the rows of the group can be folded. A chunk with a message is shown as a record. The
// progress that the work reports is kept beside the rows.

import { decodeBase64, type GroupEvent, isAfter, isFinal, type RunEvent, type RunStatus } from "./event";
import { Groups, type UnfoldedRows } from "./groups";
import { gapLabel, statusLabel } from "./labels";
import { Line, MAX_COLUMNS } from "./line";
import { Ring } from "./ring";
import type { Row, Source } from "./row";
import { type RowSink, TextStream } from "./text_stream";

/**
 * Streams of one variation whose chunks are joined at a time: more than anyone reads side by side.
 */
const MAX_STREAMS = 64;

/** Live events that are buffered while the window moves to the live end. */
const MAX_BUFFERED_EVENTS = 20_000;

/** How far to look for the rest of a line that the edge of a page has cut. */
const MAX_JOIN_ROWS = 512;

/** Progress labels that are kept: the newest. */
const MAX_PROGRESS_LABELS = 4;

export class VariationLog implements RowSink {
  readonly rows = new Ring<Row>();
  chars = 0;
  /**
   * The length of the longest line so far: the list is this wide, so its scroll bar does not jump.
   */
  columns = 0;
  status: RunStatus | undefined;
  exitCode: number | null = null;
  signal: number | null = null;
  /** True once a line with a level has come: the level needs a column of its own. */
  hasLevels = false;
  /** The latest progress event of each label, the newest last. */
  readonly progress = new Map<string, RunEvent>();
  /** The cursor before which older events can be loaded; null at the beginning of the run. */
  older: string | null = null;
  /**
   * The cursor after which newer events can be loaded; null while the window ends where the run
   * does.
   */
  newer: string | null = null;
  /** The row that the list must scroll to; the list then resets it. */
  target: number | null = null;
  /** The row that the reader searched for or went to; the list highlights it. */
  hit: number | null = null;
  private buffered: RunEvent[] | null = null;
  private groups = new Groups();
  private streams = new Map<string, TextStream>();

  constructor(readonly variation: number) {}

  /** Handles an event that arrives at the live end. */
  appendLive(event: RunEvent): void {
    this.updateState(event);
    if (this.newer === null) {
      this.append(event);
    } else if (this.buffered !== null && this.buffered.push(event) > MAX_BUFFERED_EVENTS) {
      this.buffered = null;
    }
  }

  /** Adds the rows of an event. */
  append(event: RunEvent): void {
    switch (event.kind) {
      case "output":
      case "log":
        this.appendChunk(event);
        break;
      case "status":
        if (isFinal(event.status)) {
          this.finish();
        }
        this.appendNotice(statusLabel(event), event, "notice");
        break;
      case "gap":
        if (event.reason !== "reborn") {
          this.finish();
        }
        this.appendNotice(gapLabel(event), event, "gap");
        break;
    }
  }

  private updateState(event: RunEvent): void {
    if (event.kind === "status") {
      this.status = event.status;
      this.exitCode = event.exit_code ?? null;
      this.signal = event.signal ?? null;
    } else if (event.kind === "progress") {
      this.setProgress(event);
    }
  }

  /** Buffers live events from now on, until the window reaches them. */
  startBuffering(): void {
    this.buffered = [];
  }

  /**
   * The window has reached the event `last`, and the gateway had nothing after it. Goes on live
   * with the buffered events, unless too many have come to buffer them all.
   */
  joinLive(last: string): void {
    if (this.newer !== null && this.buffered !== null) {
      this.newer = null;
      for (const event of this.buffered) {
        if (event.id === undefined || isAfter(event.id, last)) {
          this.append(event);
        }
      }
    }
    this.buffered = null;
  }

  /**
   * Empties the window, so that it can be filled from another position. Status and progress stay.
   */
  reset(): void {
    this.finish();
    this.groups = new Groups();
    while (this.rows.pop() !== undefined) {}
    this.chars = 0;
    this.columns = 0;
    this.target = null;
    this.hit = null;
  }

  /** Puts the rows of older events in front. */
  prepend(events: readonly RunEvent[]): void {
    // Build the older rows in a log of their own, as if they had come live.
    const older = new VariationLog(this.variation);
    for (const event of events) {
      older.append(event);
    }
    this.joinLinesAtEdge(older);
    for (const stream of older.streams.values()) {
      stream.finish();
    }
    // Renumber them so that they end just before the first row here.
    const rows: Row[] = [];
    for (let at = older.rows.first; at < older.rows.end; at += 1) {
      const row = older.rows.get(at);
      if (row !== undefined) {
        rows.push(row);
      }
    }
    const by = this.rows.first - rows.length;
    for (const row of rows) {
      row.number += by;
    }
    // Take over the rows, the groups and the counts.
    older.groups.finish(rows.length);
    this.rows.prepend(rows);
    this.groups.prepend(older.groups, by);
    this.chars += older.chars;
    this.columns = Math.max(this.columns, older.columns);
    this.hasLevels ||= older.hasLevels;
  }

  /**
   * Joins each line that the edge between two pages has cut. The joined line stays in the row that
   * is already here, and the row with its first part is removed from `older`.
   */
  private joinLinesAtEdge(older: VariationLog): void {
    for (const [name, stream] of older.streams) {
      const open = stream.openRow;
      for (
        let at = this.rows.first;
        open !== null && at < Math.min(this.rows.end, this.rows.first + MAX_JOIN_ROWS);
        at += 1
      ) {
        const row = this.rows.get(at);
        if (row === undefined || row.source === "gap") {
          break;
        }
        if (row.stream === name) {
          if (row.group === null && open.line.length + row.line.length <= MAX_COLUMNS) {
            row.line = Line.joined(open.line, row.line);
            this.chars += open.line.length;
            this.columns = Math.max(this.columns, row.line.length);
            older.removeRow(open);
          }
          break;
        }
      }
    }
  }

  /** Removes a row that is among the last ones. */
  private removeRow(row: Row): void {
    const following: Row[] = [];
    for (let last = this.rows.pop(); last !== undefined && last !== row; last = this.rows.pop()) {
      following.push(last);
    }
    this.chars -= row.line.length;
    for (const next of following.reverse()) {
      next.number = this.rows.push(next);
      next.group?.renumber(-1);
    }
  }

  /** Drops the newest rows above a limit: the window then ends before the run does. */
  trimEnd(maxRows: number): void {
    if (this.rows.length <= maxRows) {
      return;
    }
    this.finish();
    let dropped: Row | undefined;
    while (this.rows.length > maxRows || this.rows.get(this.rows.end - 1)?.id === dropped?.id) {
      dropped = this.rows.pop();
      if (dropped === undefined) {
        break;
      }
      this.chars -= dropped.line.length;
    }
    this.groups.dropEnd(this.rows.end);
    this.newer = this.rows.get(this.rows.end - 1)?.id ?? this.newer;
  }

  /** Drops the oldest rows above the limits. */
  trimStart(maxRows: number, maxChars: number): void {
    let dropped: Row | undefined;
    const isOver = () => this.rows.length > maxRows || (this.chars > maxChars && this.rows.length > 1);
    // All rows of an event go together, because a cursor stands between events.
    while (isOver() || (dropped?.id !== undefined && this.rows.get(this.rows.first)?.id === dropped.id)) {
      dropped = this.rows.shift();
      this.chars -= dropped?.line.length ?? 0;
    }
    if (dropped !== undefined) {
      this.older = this.rows.get(this.rows.first)?.id ?? this.older;
      this.groups.dropStart(this.rows.first);
    }
  }

  /** Adds a chunk of output or log. */
  appendChunk(event: RunEvent): void {
    const stream = this.streamOf(event);
    if (event.group !== undefined) {
      stream.skipMarker(event);
      this.applyGroup(event.group, event);
      return;
    }
    if (event.message !== undefined) {
      stream.appendRecord(event);
      return;
    }
    if (typeof event.bytes === "string") {
      stream.appendBytes(decodeBase64(event.bytes), event);
    } else {
      stream.appendText(event.text ?? "", event);
    }
  }

  /** The stream of an event. Above MAX_STREAMS, the least recently used stream is finished. */
  private streamOf(event: RunEvent): TextStream {
    const standard = event.kind === "log" ? "stderr" : "stdout";
    const name = event.stream ?? standard;
    const source = name === "stdout" || name === "stderr" ? name : standard;
    const stream = this.streams.get(name) ?? new TextStream(this, source, name);
    this.streams.delete(name);
    this.streams.set(name, stream);
    if (this.streams.size > MAX_STREAMS) {
      const [oldest] = this.streams;
      oldest?.[1].finish();
      this.streams.delete(oldest?.[0] ?? "");
    }
    return stream;
  }

  private applyGroup(group: GroupEvent, event: RunEvent): void {
    if (group.state === "open") {
      this.groups.unfold(group.id);
      return;
    }
    this.groups.end(group.id, this.rows.end);
    if (group.state === "start") {
      const row = this.openRow(event, "group");
      row.group = this.groups.start(group, row.number);
      this.setLine(row, Line.of(row.group.title));
    }
  }

  private appendNotice(text: string, event: RunEvent, source: Source): void {
    this.setLine(this.openRow(event, source), Line.of(text));
  }

  /** Sets the line of a new row. */
  setLine(row: Row, line: Line): void {
    row.line = line;
    this.lineChanged(line, 0);
  }

  lineChanged(line: Line, lengthBefore: number): void {
    this.chars += line.length - lengthBefore;
    this.columns = Math.max(this.columns, line.length);
  }

  setProgress(event: RunEvent): void {
    const label = event.label ?? "progress";
    this.progress.delete(label);
    if (event.state !== "cleared") {
      this.progress.set(label, event);
    }
    for (const oldest of this.progress.keys()) {
      if (this.progress.size <= MAX_PROGRESS_LABELS) {
        break;
      }
      this.progress.delete(oldest);
    }
  }

  /** A snapshot of the rows that no folded group hides. */
  unfoldedRows(): UnfoldedRows {
    return this.groups.unfoldedRows(this.rows.first, this.rows.end);
  }

  /**
   * Closes every open line and group. After a gap, text must not be joined to what came before it,
   * and a folded group must not hide the row of the gap. At the end of the run nothing follows.
   */
  finish(): void {
    for (const stream of this.streams.values()) {
      stream.finish();
    }
    this.streams.clear();
    this.groups.finish(this.rows.end);
  }

  openRow(event: RunEvent, source: Source, stream?: string): Row {
    const { depth } = this.groups;
    const { id, level } = event;
    const { end: number } = this.rows;
    const row: Row = {
      number,
      id,
      stream,
      time: event.time ?? 0,
      source,
      level: undefined,
      depth,
      group: null,
      line: new Line(),
    };
    if (stream === undefined) {
      this.rows.push(row);
      return row;
    }
    row.level = level;
    this.rows.push(row);
    if (level !== undefined) {
      this.hasLevels = true;
    }
    if (level === "error" || level === "fatal") {
      this.groups.countError();
    }
    return row;
  }
}
