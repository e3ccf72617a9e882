// Turns the chunks of one stream of a variation into rows: decodes bytes, applies escape sequences,
// and writes text into the open row until a newline closes it.

import { applySgr, type Style } from "./ansi";
import { EscapeReader, type EscapeSink } from "./escape";
import { decodeBase64, type RunEvent } from "./event";
import { type Line, MAX_COLUMNS } from "./line";
import { recordLine } from "./record";
import type { Row, Source } from "./row";

/** The log that a stream writes its rows to. */
export interface RowSink {
  /** Rows with a number below `first` have been dropped. */
  readonly rows: { readonly first: number };
  openRow(event: RunEvent, source: Source, stream: string): Row;
  setLine(row: Row, line: Line): void;
  /** A line that was `lengthBefore` characters long has changed. */
  lineChanged(line: Line, lengthBefore: number): void;
}

export class TextStream implements EscapeSink {
  private readonly escapes = new EscapeReader();
  private decoder: TextDecoder | null = null;
  private row: Row | null = null;
  private currentStyle: Style | null = null;
  private event: RunEvent = { kind: "output" };
  /** A newline directly after a marker ends the marker's line; it is not an empty line. */
  private afterMarker = false;

  constructor(
    private readonly log: RowSink,
    private readonly source: Source,
    private readonly name: string,
  ) {}

  /** The row that is being written, unless the log has dropped it meanwhile. */
  get openRow(): Row | null {
    if (this.row !== null && this.row.number < this.log.rows.first) {
      this.row = null;
    }
    return this.row;
  }

  appendText(text: string, event: RunEvent): void {
    this.event = event;
    // Text after bytes: the incomplete character in the decoder will never be completed.
    const incomplete = this.decoder?.decode() ?? "";
    this.decoder = null;
    this.write(incomplete + text);
  }

  appendBytes(bytes: Uint8Array, event: RunEvent): void {
    this.event = event;
    this.decoder ??= new TextDecoder("utf-8", { ignoreBOM: true });
    this.write(this.decoder.decode(bytes, { stream: true }));
  }

  /** Handles a chunk that marks a group: it is not shown as text. */
  skipMarker(event: RunEvent): void {
    this.finish();
    const hasNewline =
      typeof event.bytes === "string" ? decodeBase64(event.bytes).at(-1) === 0x0a : event.text?.endsWith("\n");
    this.afterMarker = hasNewline !== true;
  }

  appendRecord(event: RunEvent): void {
    this.finish();
    this.log.setLine(this.log.openRow(event, this.source, this.name), recordLine(event));
  }

  finish(): void {
    this.write(this.decoder?.decode() ?? "");
    this.decoder = null;
    this.row = null;
  }

  private write(text: string): void {
    const rest = this.afterMarker ? text.replace(/^\r?\n/, "") : text;
    this.afterMarker &&= text === "";
    this.escapes.read(rest, this);
  }

  private writableLine(): Line {
    let row = this.openRow;
    if (row === null || row.line.room <= 0) {
      row = this.log.openRow(this.event, this.source, this.name);
      this.row = row;
    }
    return row.line;
  }

  print(text: string): void {
    let rest = text;
    while (rest !== "") {
      const line = this.writableLine();
      const lengthBefore = line.length;
      const part = rest.slice(0, line.room);
      line.write(part, this.currentStyle);
      rest = rest.slice(part.length);
      this.log.lineChanged(line, lengthBefore);
    }
  }

  newline(): void {
    if (this.openRow === null) {
      this.writableLine();
    }
    this.row = null;
  }

  moveCursor(move: { to: number } | { by: number }): void {
    // Without an open row the column is 0 already, and a bare CR must not make an empty row.
    const line = this.openRow?.line;
    if (line !== undefined) {
      const column = "to" in move ? move.to : line.column + move.by;
      line.column = Math.min(Math.max(0, column), MAX_COLUMNS);
    }
  }

  eraseInLine(mode: number): void {
    const line = this.openRow?.line;
    if (line !== undefined) {
      const lengthBefore = line.length;
      line.erase(mode);
      this.log.lineChanged(line, lengthBefore);
    }
  }

  setStyle(params: string): void {
    this.currentStyle = applySgr(this.currentStyle, params);
  }
}
