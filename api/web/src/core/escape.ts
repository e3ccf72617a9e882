// Reads the text of one terminal stream, piece by piece, and tells what it does to the current line.
//
// A state machine whose state outlives a piece, because a chunk may end in the middle of an escape. Acted on: SGR, erase in
// line, absolute column, CR, LF, backspace, tab. Every other escape or control character is swallowed whole. An escape
// longer than MAX_ESCAPE is given up, so that a stray ESC cannot swallow the rest of a run.

export interface EscapeSink {
  print(text: string): void;
  newline(): void;
  column(move: { to: number } | { by: number }): void;
  /** 0: from the cursor to the end, 1: from the start to the cursor, 2: the whole line. */
  erase(mode: number): void;
  style(params: string): void;
}

const MAX_ESCAPE = 4096;
const BEL = 0x07;
const BACKSPACE = 0x08;
const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const CAN = 0x18;
const SUB = 0x1a;
const ESC = 0x1b;

type State = "ground" | "escape" | "intermediate" | "csi" | "string" | "stringEscape";

export class EscapeReader {
  private state: State = "ground";
  private params = "";
  private taken = 0;

  read(text: string, sink: EscapeSink): void {
    let plainFrom = 0;
    for (let i = 0; i < text.length; i += 1) {
      const code = text.charCodeAt(i);
      if (this.state === "ground") {
        if (!isControl(code)) {
          continue;
        }
        if (i > plainFrom) {
          sink.print(text.slice(plainFrom, i));
        }
        plainFrom = i + 1;
        this.control(code, sink);
      } else {
        this.inEscape(code, text.charAt(i), sink);
        plainFrom = i + 1;
      }
    }
    if (this.state === "ground" && plainFrom < text.length) {
      sink.print(text.slice(plainFrom));
    }
  }

  private control(code: number, sink: EscapeSink): void {
    switch (code) {
      case LF:
        sink.newline();
        break;
      case CR:
        sink.column({ to: 0 });
        break;
      case BACKSPACE:
        sink.column({ by: -1 });
        break;
      case TAB:
        sink.print("\t");
        break;
      case ESC:
        this.enter("escape");
        break;
    }
  }

  private enter(state: State): void {
    this.state = state;
    this.params = "";
    this.taken = 0;
  }

  private inEscape(code: number, char: string, sink: EscapeSink): void {
    this.taken += 1;
    if (code === CAN || code === SUB || this.taken > MAX_ESCAPE) {
      this.enter("ground");
      return;
    }
    switch (this.state) {
      case "escape":
        this.escapeIntroducer(code, char);
        break;
      case "intermediate":
        if (code >= 0x30) {
          this.enter("ground");
        }
        break;
      case "csi":
        this.csi(code, char, sink);
        break;
      case "string":
        if (code === BEL || code === 0x9c) {
          this.enter("ground");
        } else if (code === ESC) {
          this.state = "stringEscape";
        }
        break;
      case "stringEscape":
        // `ESC \` ends the string; any other escape cuts it short and counts itself.
        if (char === "\\") {
          this.enter("ground");
        } else {
          this.enter("escape");
          this.inEscape(code, char, sink);
        }
        break;
    }
  }

  private escapeIntroducer(code: number, char: string): void {
    if (char === "[") {
      this.enter("csi");
    } else if ("]PX^_".includes(char)) {
      this.enter("string");
    } else if (code >= 0x20 && code <= 0x2f) {
      this.state = "intermediate";
    } else if (code !== ESC) {
      this.enter("ground");
    }
  }

  private csi(code: number, char: string, sink: EscapeSink): void {
    if (code >= 0x20 && code <= 0x3f) {
      this.params += char;
      return;
    }
    const params = this.params;
    if (code === ESC) {
      this.enter("escape");
      return;
    }
    if (code < 0x20) {
      // A terminal obeys a control character inside an escape and goes on reading the escape.
      this.control(code, sink);
      return;
    }
    this.enter("ground");
    if (char === "m" && /^[\d;:]*$/.test(params)) {
      sink.style(params);
    } else if (char === "K" && /^[012]?$/.test(params)) {
      sink.erase(Number(params || 0));
    } else if (char === "G" && /^\d{0,5}$/.test(params)) {
      sink.column({ to: Math.max(0, Number(params || 1) - 1) });
    }
  }
}

function isControl(code: number): boolean {
  return code < 0x20 || (code >= 0x7f && code <= 0x9f);
}
