// A log line whose producer has said what it says: shown as its message and, if the line is a JSON object, the rest of its
// fields as `key=value` behind it.
//
// One row: line ends within a message become a sign. What does not fit ends with one, too.

import { applySgr, DIM, type Style } from "./ansi";
import { EscapeReader } from "./escape";
import type { RunEvent } from "./event";
import { Line, MAX_COLUMNS } from "./line";

const LEVELS = ["level", "lvl", "severity", "levelname"];
const MESSAGES = ["message", "msg", "event"];
const LINE_END = " \u23ce ";
const CUT = "\u2026";

export function recordLine(event: RunEvent): Line {
  const line = new Line();
  writePlain(line, event.message ?? "");
  for (const [key, value] of fields(event)) {
    write(line, line.length === 0 ? `${key}=` : ` ${key}=`, DIM_STYLE);
    write(line, shown(value), DIM_STYLE);
    if (line.room <= 0) {
      break;
    }
  }
  return line;
}

const DIM_STYLE: Style = { fg: null, bg: null, flags: DIM };

/** Fields of a JSON line that are neither its level nor its message. */
function fields(event: RunEvent): [string, unknown][] {
  if (event.format !== "json" || event.text === undefined) {
    return [];
  }
  let value: unknown;
  try {
    value = JSON.parse(event.text);
  } catch {
    return [];
  }
  if (typeof value !== "object" || value === null) {
    return [];
  }
  const all = value as Record<string, unknown>;
  const level = LEVELS.find((key) => key in all);
  const message = MESSAGES.find((key) => all[key] === event.message);
  return Object.entries(all).filter(([key]) => key !== level && key !== message);
}

function shown(value: unknown): string {
  const plain = typeof value === "string" && /^[^\s"=\p{C}]+$/u.test(value);
  return plain ? value : JSON.stringify(value);
}

function write(line: Line, text: string, style: Style | null): void {
  if (text.length <= line.room) {
    line.write(text, style);
  } else if (line.room > 0) {
    line.write(text.slice(0, Math.max(0, line.room - CUT.length)) + CUT, style);
  }
}

/** Text that may hold escapes: their colours count, everything else of them does not. */
function writePlain(line: Line, text: string): void {
  let style: Style | null = null;
  const body = text.trimEnd().slice(0, 2 * MAX_COLUMNS);
  new EscapeReader().read(body, {
    print: (part) => write(line, part, style),
    newline: () => write(line, LINE_END, DIM_STYLE),
    column: () => {},
    erase: () => {},
    style: (params) => {
      style = applySgr(style, params);
    },
  });
}
