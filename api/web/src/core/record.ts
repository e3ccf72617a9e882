// A structured log line: its message, followed by its other fields as `key=value` if the line is a
// JSON object.
//
// A record is always one row: newlines in the message become NEWLINE_SIGN, and text that does not
// fit is cut and ends with an ELLIPSIS.

import { applySgr, DIM, type Style } from "./ansi";
import { EscapeReader } from "./escape";
import type { RunEvent } from "./event";
import { type JsonField, jsonFields } from "./json_fields";
import { Line, MAX_COLUMNS } from "./line";

const LEVEL_KEYS = ["level", "lvl", "severity", "levelname"];
const MESSAGE_KEYS = ["message", "msg", "event"];
const NEWLINE_SIGN = " \u23ce ";
const ELLIPSIS = "\u2026";

export function recordLine(event: RunEvent): Line {
  const line = new Line();
  writeMessage(line, event.message ?? "");
  for (const field of fields(event)) {
    write(line, line.length === 0 ? `${field.name}=` : ` ${field.name}=`, DIM_STYLE);
    write(line, formatValue(field), DIM_STYLE);
    if (line.room <= 0) {
      break;
    }
  }
  return line;
}

const DIM_STYLE: Style = { fg: null, bg: null, flags: DIM };

/** The fields of a JSON line except its level and its message. */
function fields(event: RunEvent): JsonField[] {
  if (event.format !== "json" || event.text === undefined) {
    return [];
  }
  // trimStart also removes a byte order mark.
  const all = jsonFields(event.text.trimStart());
  const level = LEVEL_KEYS.find((key) => all.some(({ name }) => name === key));
  const message = MESSAGE_KEYS.find((key) => all.some(({ name, text }) => name === key && text === event.message));
  return all.filter(({ name }) => name !== level && name !== message);
}

function formatValue({ json, text }: JsonField): string {
  return text !== null && /^[^\s"=\p{C}]+$/u.test(text) ? text : json;
}

function write(line: Line, text: string, style: Style | null): void {
  if (text.length <= line.room) {
    line.write(text, style);
  } else if (line.room > 0) {
    line.write(text.slice(0, Math.max(0, line.room - ELLIPSIS.length)) + ELLIPSIS, style);
  }
}

/** Writes text that may hold escapes: applies colours and styles, and drops every other escape. */
function writeMessage(line: Line, text: string): void {
  let style: Style | null = null;
  const body = text.trimEnd().slice(0, 2 * MAX_COLUMNS);
  new EscapeReader().read(body, {
    print: (part) => write(line, part, style),
    newline: () => write(line, NEWLINE_SIGN, DIM_STYLE),
    moveCursor: () => {},
    eraseInLine: () => {},
    setStyle: (params) => {
      style = applySgr(style, params);
    },
  });
}
