// The chunks of one stream of a variation become rows: bytes are decoded, escape sequences obeyed, and what is written goes
// into the row that is open until a newline ends it.

import { applySgr, type Style } from "./ansi";
import { EscapeReader, type EscapeSink } from "./escape";
import { decodeBase64, type RunEvent } from "./event";
import { type Line, MAX_COLUMNS } from "./line";
import type { Lane, Row, Source } from "./log";
import { recordLine } from "./record";

export class TextStream implements EscapeSink {
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
    private readonly name: string,
  ) {}

  /** The row that it has begun and not ended. */
  get open(): Row | null {
    return this.held();
  }

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
    this.lane.put(this.lane.open(event, this.source, this.name), recordLine(event));
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
      row = this.lane.open(this.event, this.source, this.name);
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
