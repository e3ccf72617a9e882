// Parses the text of one terminal stream, chunk by chunk, into operations on the current line.
//
// A state machine that keeps its state between chunks, because a chunk may end in the middle of an
// escape. It handles SGR, erase in line, absolute column, CR, LF, backspace and tab, and drops
// every other escape or control character. It gives up on an escape longer than MAX_ESCAPE_CHARS,
// so that a stray ESC cannot hide the rest of a run.

export interface EscapeSink {
  print(text: string): void;
  newline(): void;
  moveCursor(move: { to: number } | { by: number }): void;
  /** 0: from the cursor to the end, 1: from the start to the cursor, 2: the whole line. */
  eraseInLine(mode: number): void;
  setStyle(params: string): void;
}

const MAX_ESCAPE_CHARS = 4096;
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
  private escapeChars = 0;

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
        this.handleControl(code, sink);
      } else {
        this.continueEscape(code, text.charAt(i), sink);
        plainFrom = i + 1;
      }
    }
    if (this.state === "ground" && plainFrom < text.length) {
      sink.print(text.slice(plainFrom));
    }
  }

  private handleControl(code: number, sink: EscapeSink): void {
    switch (code) {
      case LF:
        sink.newline();
        break;
      case CR:
        sink.moveCursor({ to: 0 });
        break;
      case BACKSPACE:
        sink.moveCursor({ by: -1 });
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
    this.escapeChars = 0;
  }

  private continueEscape(code: number, char: string, sink: EscapeSink): void {
    this.escapeChars += 1;
    if (code === CAN || code === SUB || this.escapeChars > MAX_ESCAPE_CHARS) {
      this.enter("ground");
      return;
    }
    switch (this.state) {
      case "escape":
        this.startEscape(code, char);
        break;
      case "intermediate":
        if (code >= 0x30) {
          this.enter("ground");
        }
        break;
      case "csi":
        this.continueCsi(code, char, sink);
        break;
      case "string":
        if (code === BEL || code === 0x9c) {
          this.enter("ground");
        } else if (code === ESC) {
          this.state = "stringEscape";
        }
        break;
      case "stringEscape":
        // `ESC \` ends the string. Any other escape ends it too, and is then parsed itself.
        if (char === "\\") {
          this.enter("ground");
        } else {
          this.enter("escape");
          this.continueEscape(code, char, sink);
        }
        break;
    }
  }

  private startEscape(code: number, char: string): void {
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

  private continueCsi(code: number, char: string, sink: EscapeSink): void {
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
      // Like a terminal: handle a control character inside an escape, then continue the escape.
      this.handleControl(code, sink);
      return;
    }
    this.enter("ground");
    if (char === "m" && /^[\d;:]*$/.test(params)) {
      sink.setStyle(params);
    } else if (char === "K" && /^[012]?$/.test(params)) {
      sink.eraseInLine(Number(params || 0));
    } else if (char === "G" && /^\d{0,5}$/.test(params)) {
      sink.moveCursor({ to: Math.max(0, Number(params || 1) - 1) });
    }
  }
}

function isControl(code: number): boolean {
  return code < 0x20 || (code >= 0x7f && code <= 0x9f);
}
