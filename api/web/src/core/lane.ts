// One variation of a run as a list of rows: its output and log lines and its markers, in the order the events came.
//
// A stream (stdout, stderr, or one of several answers, by its name) has a decoder, an escape reader and an open row: chunks
// are joined into that row until a newline, even when rows of another stream came in between. Rows are kept in a ring; `trim` drops the oldest above the limits it
// is given. A row that was dropped while open is not written to again; its stream goes on in a new one.
//
// A chunk that marks a group is not shown as text: its start is a header row, under which the rows of the group can be folded.
// A chunk with a message is shown as a record. What the work says of its progress is kept beside the rows.

import { applySgr, type Style } from "./ansi";
import { EscapeReader, type EscapeSink } from "./escape";
import { decodeBase64, type GroupEvent, type RunEvent, type RunStatus } from "./event";
import { type Group, Groups, type Shown } from "./groups";
import { Line, MAX_COLUMNS } from "./line";
import { recordLine } from "./record";
import { Ring } from "./ring";

/** Streams of one variation whose chunks are joined at a time: more than anybody reads side by side. */
const MAX_STREAMS = 64;

/** Labels of progress that are kept: the newest. */
const MAX_PROGRESS = 4;

export type Source = "stdout" | "stderr" | "mark" | "gap" | "group";

export interface Row {
  readonly number: number;
  readonly time: number;
  readonly source: Source;
  readonly level: string | undefined;
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
  private readonly groups = new Groups();
  private streams = new Map<string, TextStream>();

  constructor(readonly variation: number) {}

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
    const stream = this.streams.get(name) ?? new TextStream(this, source);
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
      const row = this.open(event.time ?? 0, "group");
      row.group = this.groups.start(group, row.number);
      this.put(row, Line.of(row.group.title));
    }
  }

  mark(text: string, event: RunEvent, source: Source = "mark"): void {
    this.put(this.open(event.time ?? 0, source), Line.of(text));
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
    while (this.rows.length > maxRows || (this.chars > maxChars && this.rows.length > 1)) {
      this.chars -= this.rows.shift()?.line.length ?? 0;
    }
    this.groups.drop(this.rows.first);
  }

  open(time: number, source: Source, level?: string): Row {
    const { depth } = this.groups;
    const row: Row = { number: this.rows.end, time, source, level, depth, group: null, line: new Line() };
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

class TextStream implements EscapeSink {
  private readonly escapes = new EscapeReader();
  private decoder: TextDecoder | null = null;
  private row: Row | null = null;
  private current: Style | null = null;
  private event: RunEvent = { kind: "output" };
  /** The rest of a marker's line may be its end alone, which is no empty line. */
  private afterMarker = false;

  constructor(
    private readonly lane: Lane,
    private readonly source: Source,
  ) {}

  text(text: string, event: RunEvent): void {
    this.event = event;
    // Text after bytes: what the decoder still holds will never be completed.
    const rest = this.decoder?.decode() ?? "";
    this.decoder = null;
    this.feed(rest + text);
  }

  bytes(bytes: Uint8Array, event: RunEvent): void {
    this.event = event;
    this.decoder ??= new TextDecoder("utf-8", { ignoreBOM: true });
    this.feed(this.decoder.decode(bytes, { stream: true }));
  }

  /** A chunk that is not shown as text. */
  marker(event: RunEvent): void {
    this.finish();
    const ended =
      typeof event.bytes === "string" ? decodeBase64(event.bytes).at(-1) === 0x0a : event.text?.endsWith("\n");
    this.afterMarker = ended !== true;
  }

  record(event: RunEvent): void {
    this.finish();
    this.lane.put(this.lane.open(event.time ?? 0, this.source, event.level), recordLine(event));
  }

  finish(): void {
    this.feed(this.decoder?.decode() ?? "");
    this.decoder = null;
    this.row = null;
  }

  private feed(text: string): void {
    const rest = this.afterMarker ? text.replace(/^\r?\n/, "") : text;
    this.afterMarker &&= text === "";
    this.escapes.read(rest, this);
  }

  /** The row that is being written, unless the lane has dropped it meanwhile. */
  private held(): Row | null {
    if (this.row !== null && this.row.number < this.lane.rows.first) {
      this.row = null;
    }
    return this.row;
  }

  private writable(): Line {
    let row = this.held();
    if (row === null || row.line.room <= 0) {
      row = this.lane.open(this.event.time ?? 0, this.source, this.event.level);
      this.row = row;
    }
    return row.line;
  }

  private grown(line: Line, before: number): void {
    this.lane.chars += line.length - before;
    this.lane.columns = Math.max(this.lane.columns, line.length);
  }

  print(text: string): void {
    let rest = text;
    while (rest !== "") {
      const line = this.writable();
      const before = line.length;
      const piece = rest.slice(0, line.room);
      line.write(piece, this.current);
      rest = rest.slice(piece.length);
      this.grown(line, before);
    }
  }

  newline(): void {
    if (this.held() === null) {
      this.writable();
    }
    this.row = null;
  }

  column(move: { to: number } | { by: number }): void {
    // Without an open row the column is 0 already, and a bare CR must not make an empty row.
    const line = this.held()?.line;
    if (line !== undefined) {
      const wanted = "to" in move ? move.to : line.column + move.by;
      line.column = Math.min(Math.max(0, wanted), MAX_COLUMNS);
    }
  }

  erase(mode: number): void {
    const line = this.held()?.line;
    if (line !== undefined) {
      const before = line.length;
      line.erase(mode);
      this.grown(line, before);
    }
  }

  style(params: string): void {
    this.current = applySgr(this.current, params);
  }
}
