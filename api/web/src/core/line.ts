// One line of terminal text: spans of one style each, and the column of the cursor.
//
// Most lines are only appended to, which costs one string join. A carriage return moves the cursor
// back, and text written then replaces the old text. Columns count UTF-16 units, as strings do. If
// an overwrite cuts a character in half, its other half becomes a space. A line holds at most
// MAX_COLUMNS; the caller continues in the next row.

import { type Style, sameStyle } from "./ansi";

export const MAX_COLUMNS = 4096;

export interface Span {
  text: string;
  readonly style: Style | null;
}

export class Line {
  spans: Span[] = [];
  length = 0;
  column = 0;

  static of(text: string): Line {
    const line = new Line();
    line.write(text, null);
    return line;
  }

  /** Joins two lines: the second continues where the first ended. */
  static joined(first: Line, second: Line): Line {
    const line = new Line();
    for (const span of [...first.spans, ...second.spans]) {
      line.write(span.text, span.style);
    }
    line.column = first.length + second.column;
    return line;
  }

  /** The number of characters that may still be written from the cursor on. */
  get room(): number {
    return MAX_COLUMNS - this.column;
  }

  get text(): string {
    return this.spans.map((span) => span.text).join("");
  }

  write(text: string, style: Style | null): void {
    if (this.column > this.length) {
      const blank = " ".repeat(this.column - this.length);
      this.column = this.length;
      this.write(blank, null);
    }
    const end = this.column + text.length;
    if (this.column === this.length) {
      append(this.spans, text, style);
    } else {
      const spans = this.slice(0, this.column);
      append(spans, text, style);
      for (const span of this.slice(end, this.length)) {
        append(spans, span.text, span.style);
      }
      this.spans = spans;
    }
    this.column = end;
    this.length = Math.max(this.length, end);
  }

  erase(mode: number): void {
    if (mode === 0) {
      this.spans = this.slice(0, this.column);
      this.length = Math.min(this.length, this.column);
    } else if (mode === 2) {
      this.spans = [];
      this.length = 0;
    } else if (this.length > 0) {
      const column = this.column;
      this.column = 0;
      this.write(" ".repeat(Math.min(column + 1, this.length)), null);
      this.column = column;
    }
  }

  private slice(from: number, to: number): Span[] {
    const spans: Span[] = [];
    let start = 0;
    for (const span of this.spans) {
      const text = span.text.slice(Math.max(0, from - start), Math.max(0, to - start));
      start += span.text.length;
      if (text !== "") {
        append(spans, wholeCharacters(text), span.style);
      }
    }
    return spans;
  }
}

function append(spans: Span[], text: string, style: Style | null): void {
  const last = spans[spans.length - 1];
  if (last !== undefined && sameStyle(last.style, style)) {
    last.text += text;
  } else if (text !== "") {
    spans.push({ text, style });
  }
}

function wholeCharacters(text: string): string {
  return text.replace(/^[\uDC00-\uDFFF]|[\uD800-\uDBFF]$/g, " ");
}
