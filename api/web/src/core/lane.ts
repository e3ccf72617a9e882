// One variation of a run as a list of rows: its output and log lines and its markers, in the order the events came.
//
// A stream (stdout, stderr, or one of several answers, by its name) has a decoder, an escape reader and an open row: chunks
// are joined into that row until a newline, even when rows of another stream came in between. Rows are kept in a ring; `trim` drops the oldest above the limits it
// is given. A row that was dropped while open is not written to again; its stream goes on in a new one.

import { applySgr, type Style } from "./ansi";
import { EscapeReader, type EscapeSink } from "./escape";
import { decodeBase64, type RunEvent, type RunStatus } from "./event";
import { Line, MAX_COLUMNS } from "./line";
import { Ring } from "./ring";

/** Streams of one variation whose chunks are joined at a time: more than anybody reads side by side. */
const MAX_STREAMS = 64;

export type Source = "stdout" | "stderr" | "mark" | "gap";

export interface Row {
  readonly number: number;
  readonly time: number;
  readonly source: Source;
  readonly level: string | undefined;
  /** Marks of one progress share a label and are one row, brought up to date in place. */
  readonly label: string | undefined;
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
  private streams = new Map<string, TextStream>();

  constructor(readonly variation: number) {}

  /** A chunk of output or log. */
  text(event: RunEvent): void {
    const usual = event.kind === "log" ? "stderr" : "stdout";
    const name = event.stream ?? usual;
    const source = name === "stdout" || name === "stderr" ? name : usual;
    const stream = this.streams.get(name) ?? new TextStream(this, source);
    // The one that was heard of longest ago comes first, and ends where there are too many.
    this.streams.delete(name);
    this.streams.set(name, stream);
    if (this.streams.size > MAX_STREAMS) {
      const [oldest] = this.streams;
      oldest?.[1].finish();
      this.streams.delete(oldest?.[0] ?? "");
    }
    if (typeof event.bytes === "string") {
      stream.bytes(decodeBase64(event.bytes), event);
    } else {
      stream.text(event.text ?? "", event);
    }
  }

  mark(text: string, event: RunEvent, source: Source = "mark", label?: string): void {
    const last = this.rows.get(this.rows.end - 1);
    if (label !== undefined && last?.label === label) {
      this.chars += text.length - last.line.length;
      last.line = Line.of(text);
      return;
    }
    const row = this.open(event.time ?? 0, source, undefined, label);
    row.line = Line.of(text);
    this.chars += text.length;
    this.columns = Math.max(this.columns, text.length);
  }

  /** Ends every open line: after a hole nothing may be joined to what stood before it, and at the end nothing follows. */
  finish(): void {
    for (const stream of this.streams.values()) {
      stream.finish();
    }
    this.streams.clear();
  }

  trim(maxRows: number, maxChars: number): void {
    while (this.rows.length > maxRows || (this.chars > maxChars && this.rows.length > 1)) {
      this.chars -= this.rows.shift()?.line.length ?? 0;
    }
  }

  open(time: number, source: Source, level?: string, label?: string): Row {
    const row: Row = { number: this.rows.end, time, source, level, label, line: new Line() };
    this.rows.push(row);
    return row;
  }
}

class TextStream implements EscapeSink {
  private readonly escapes = new EscapeReader();
  private decoder: TextDecoder | null = null;
  private row: Row | null = null;
  private current: Style | null = null;
  private event: RunEvent = { kind: "output" };

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

  finish(): void {
    this.feed(this.decoder?.decode() ?? "");
    this.decoder = null;
    this.row = null;
  }

  private feed(text: string): void {
    this.escapes.read(text, this);
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
