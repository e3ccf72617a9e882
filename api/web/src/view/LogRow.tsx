// One row. Its text is text nodes, whatever the run printed; the time and the level are drawn by the style sheet, so that they
// are neither copied nor read as part of the line. The header of a group is a button that folds it.

import { styleAttributes } from "../core/ansi";
import type { Group } from "../core/groups";
import type { Span } from "../core/line";
import type { Row } from "../core/log";
import { amount, clock as clockOf } from "../core/time";

const LEVELS = new Set(["trace", "debug", "info", "warn", "error", "fatal"]);
const MAX_DEPTH = 4;

interface LogRowProps {
  row: Row;
  clock: boolean;
  /** The number of the next row of all: how far a group goes that has not ended. */
  end: number;
  /** The reader asked for it. */
  hit: boolean;
  fold(group: Group): void;
}

export function LogRow({ row, clock, end, hit, fold }: LogRowProps) {
  // A level of another name is shown as it is, without a colour.
  const level = row.level !== undefined && LEVELS.has(row.level) ? ` l-${row.level}` : "";
  const depth = row.depth === 0 ? "" : ` d-${Math.min(row.depth, MAX_DEPTH)}`;
  const group = row.group;
  return (
    <div
      class={`row r-${row.source}${level}${depth}${group?.muted ? " muted" : ""}${hit ? " hit" : ""}`}
      data-testid="log-row"
      data-number={row.number}
      data-source={row.source}
      data-time={clock && row.time > 0 ? clockOf(row.time) : ""}
    >
      {row.level !== undefined && <span class="level" data-level={row.level.slice(0, 5)} />}
      {group === null ? row.line.spans.map(drawSpan) : <GroupHeader group={group} end={end} fold={fold} />}
    </div>
  );
}

function GroupHeader({ group, end, fold }: { group: Group; end: number; fold(group: Group): void }) {
  const rows = group.rows(end);
  return (
    <button
      type="button"
      class="fold"
      data-testid="log-group"
      aria-expanded={!group.folded}
      onClick={() => fold(group)}
    >
      {group.title}
      <span class="rows-in">
        {amount(rows)} {rows === 1 ? "line" : "lines"}
      </span>
      {group.errors > 0 && (
        <span class="errors-in">
          {amount(group.errors)} {group.errors === 1 ? "error" : "errors"}
        </span>
      )}
    </button>
  );
}

function drawSpan({ text, style }: Span, at: number) {
  if (style === null) {
    return text;
  }
  const { class: name, color, background } = styleAttributes(style);
  return (
    <span key={at} class={name} style={{ color, backgroundColor: background }}>
      {text}
    </span>
  );
}
