// One variation of a run as a list of rows: its output and log lines and its markers, in the order the events came.
//
// A stream (stdout, stderr, or one of several answers, by its name) has a decoder, an escape reader and an open row: chunks
// are joined into that row until a newline, even when rows of another stream came in between. Rows are kept in a ring; `trim` drops the oldest above the limits it
// is given. A row that was dropped while open is not written to again; its stream goes on in a new one.
//
// The rows are a window of the variation: `older` and `newer` say from where more can be had on either side. While there is
// more behind it the window is detached from the live end: what comes then only tells how the work stands, or is held until
// the window has reached it (`hold`, `attach`).
//
// A chunk that marks a group is not shown as text: its start is a header row, under which the rows of the group can be folded.
// A chunk with a message is shown as a record. What the work says of its progress is kept beside the rows.

import { decodeBase64, type GroupEvent, isAfter, isFinal, type RunEvent, type RunStatus } from "./event";
import { type Group, Groups, type Shown } from "./groups";
import { gapText, statusText } from "./labels";
import { Line, MAX_COLUMNS } from "./line";
import { Ring } from "./ring";
import { TextStream } from "./text_stream";

/** Streams of one variation whose chunks are joined at a time: more than anybody reads side by side. */
const MAX_STREAMS = 64;

/** Events that are held while the window moves on to the live end. */
const MAX_HELD = 20_000;

/** How far the rest of a line is looked for that was cut by the edge of a page. */
const MAX_SEAM = 512;

/** Labels of progress that are kept: the newest. */
const MAX_PROGRESS = 4;

export type Source = "stdout" | "stderr" | "mark" | "gap" | "group";

export interface Row {
  number: number;
  /** The event that it began with. */
  readonly id: string | undefined;
  /** The stream that writes it, if one does. */
  readonly stream: string | undefined;
  readonly time: number;
  readonly source: Source;
  level: string | undefined;
  /** How many groups it is in. */
  readonly depth: number;
  /** The group that it is the header of. */
  group: Group | null;
  line: Line;
}

export class Lane {
  readonly rows = new Ring<Row>();
  chars = 0;
  /** The longest line so far: how wide the list must be for its scroll bar not to jump. */
  columns = 0;
  status: RunStatus | undefined;
  exitCode: number | null = null;
  signal: number | null = null;
  /** True once a line with a level has come, which takes room of its own. */
  hasLevels = false;
  /** How far the work has come, by label, the newest last. */
  readonly progress = new Map<string, RunEvent>();
  /** The cursor before which older events can be had; null at the beginning. */
  older: string | null = null;
  /** The cursor behind which newer events can be had; null while the window ends where the run does. */
  newer: string | null = null;
  /** The row that was asked for, to be brought into view, and to be marked. */
  target: number | null = null;
  hit: number | null = null;
  private held: RunEvent[] | null = null;
  private groups = new Groups();
  private streams = new Map<string, TextStream>();

  constructor(readonly variation: number) {}

  /** An event as it comes, at the live end. */
  live(event: RunEvent): void {
    this.state(event);
    if (this.newer === null) {
      this.take(event);
    } else if (this.held !== null && this.held.push(event) > MAX_HELD) {
      this.held = null;
    }
  }

  /** Adds the rows of an event. */
  take(event: RunEvent): void {
    switch (event.kind) {
      case "output":
      case "log":
        this.text(event);
        break;
      case "status":
        if (isFinal(event.status)) {
          this.finish();
        }
        this.mark(statusText(event), event);
        break;
      case "gap":
        if (event.reason !== "reborn") {
          this.finish();
        }
        this.mark(gapText(event), event, "gap");
        break;
    }
  }

  /** Keeps what an event says of how the work stands. */
  private state(event: RunEvent): void {
    if (event.kind === "status") {
      this.status = event.status;
      this.exitCode = event.exit_code ?? null;
      this.signal = event.signal ?? null;
    } else if (event.kind === "progress") {
      this.tell(event);
    }
  }

  /** Keeps what comes from now on, until the window has reached it. */
  hold(): void {
    this.held = [];
  }

  /** The window has reached `upto`, and there was nothing behind it: goes on live, unless too much has come meanwhile. */
  attach(upto: string): void {
    if (this.newer !== null && this.held !== null) {
      this.newer = null;
      for (const event of this.held) {
        if (event.id === undefined || isAfter(event.id, upto)) {
          this.take(event);
        }
      }
    }
    this.held = null;
  }

  /** Empties the window, to be filled from elsewhere; what is known of the work stays. */
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
    const before = new Lane(this.variation);
    for (const event of events) {
      before.take(event);
    }
    this.joinAtSeam(before);
    for (const stream of before.streams.values()) {
      stream.finish();
    }
    const rows: Row[] = [];
    for (let at = before.rows.first; at < before.rows.end; at += 1) {
      const row = before.rows.get(at);
      if (row !== undefined) {
        rows.push(row);
      }
    }
    const by = this.rows.first - rows.length;
    for (const row of rows) {
      row.number += by;
    }
    before.groups.finish(rows.length);
    this.rows.prepend(rows);
    this.groups.prepend(before.groups, by);
    this.chars += before.chars;
    this.columns = Math.max(this.columns, before.columns);
    this.hasLevels ||= before.hasLevels;
  }

  /** A line that goes on behind the edge of a page is one row: the first part is drawn, the second is emptied into it. */
  private joinAtSeam(before: Lane): void {
    for (const [name, stream] of before.streams) {
      const open = stream.open;
      for (
        let at = this.rows.first;
        open !== null && at < Math.min(this.rows.end, this.rows.first + MAX_SEAM);
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
            before.remove(open);
          }
          break;
        }
      }
    }
  }

  /** Takes a row out that is among the last ones. */
  private remove(row: Row): void {
    const behind: Row[] = [];
    for (let last = this.rows.pop(); last !== undefined && last !== row; last = this.rows.pop()) {
      behind.push(last);
    }
    this.chars -= row.line.length;
    for (const last of behind.reverse()) {
      last.number = this.rows.push(last);
      last.group?.move(-1);
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

  /** A chunk of output or log. */
  text(event: RunEvent): void {
    const stream = this.stream(event);
    if (event.group !== undefined) {
      stream.marker(event);
      this.group(event.group, event);
      return;
    }
    if (event.message !== undefined) {
      stream.record(event);
      return;
    }
    if (typeof event.bytes === "string") {
      stream.bytes(decodeBase64(event.bytes), event);
    } else {
      stream.text(event.text ?? "", event);
    }
  }

  /** The stream that an event belongs to; where there are too many, the one heard of longest ago ends. */
  private stream(event: RunEvent): TextStream {
    const usual = event.kind === "log" ? "stderr" : "stdout";
    const name = event.stream ?? usual;
    const source = name === "stdout" || name === "stderr" ? name : usual;
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

  private group(group: GroupEvent, event: RunEvent): void {
    if (group.state === "open") {
      this.groups.unfold(group.id);
      return;
    }
    this.groups.end(group.id, this.rows.end);
    if (group.state === "start") {
      const row = this.open(event, "group");
      row.group = this.groups.start(group, row.number);
      this.put(row, Line.of(row.group.title));
    }
  }

  mark(text: string, event: RunEvent, source: Source = "mark"): void {
    this.put(this.open(event, source), Line.of(text));
  }

  /** Gives a new row its line. */
  put(row: Row, line: Line): void {
    row.line = line;
    this.chars += line.length;
    this.columns = Math.max(this.columns, line.length);
  }

  tell(event: RunEvent): void {
    const label = event.label ?? "progress";
    this.progress.delete(label);
    if (event.state !== "cleared") {
      this.progress.set(label, event);
    }
    for (const oldest of this.progress.keys()) {
      if (this.progress.size <= MAX_PROGRESS) {
        break;
      }
      this.progress.delete(oldest);
    }
  }

  /** Which rows are shown now, in order. */
  shown(): Shown {
    return this.groups.shown(this.rows.first, this.rows.end);
  }

  /**
   * Ends every open line and group: after a hole nothing may be joined to what stood before it, and what tells of the hole must
   * not be folded away; at the end nothing follows.
   */
  finish(): void {
    for (const stream of this.streams.values()) {
      stream.finish();
    }
    this.streams.clear();
    this.groups.finish(this.rows.end);
  }

  trim(maxRows: number, maxChars: number): void {
    let dropped: Row | undefined;
    const isOver = () => this.rows.length > maxRows || (this.chars > maxChars && this.rows.length > 1);
    // All rows of an event go together: the cursor stands between events.
    while (isOver() || (dropped?.id !== undefined && this.rows.get(this.rows.first)?.id === dropped.id)) {
      dropped = this.rows.shift();
      this.chars -= dropped?.line.length ?? 0;
    }
    if (dropped !== undefined) {
      this.older = this.rows.get(this.rows.first)?.id ?? this.older;
      this.groups.drop(this.rows.first);
    }
  }

  open(event: RunEvent, source: Source, stream?: string): Row {
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
      this.groups.error();
    }
    return row;
  }
}
