// One row of a log. Its text becomes text nodes, whatever the run has printed. The style sheet
// draws the time and the level, so that they are neither copied nor read aloud as part of the line.
// The header of a group is a button that folds the group.

import { styleAttributes } from "../core/ansi";
import type { Group } from "../core/groups";
import type { Span } from "../core/line";
import type { Row } from "../core/row";
import { amount, clock as clockTime } from "../core/time";

const KNOWN_LEVELS = new Set(["trace", "debug", "info", "warn", "error", "fatal"]);
/** Groups nested deeper are not indented further. */
const MAX_INDENT_LEVELS = 4;

interface LogRowProps {
  row: Row;
  clock: boolean;
  /** The number that the log's next row will get: there a group ends that still goes on. */
  end: number;
  /** The reader searched for this row or went to it. */
  hit: boolean;
  toggleGroup(group: Group): void;
}

export function LogRow({ row, clock, end, hit, toggleGroup }: LogRowProps) {
  // A level with another name is shown as it is, without a colour.
  const level = row.level !== undefined && KNOWN_LEVELS.has(row.level) ? ` l-${row.level}` : "";
  const depth = row.depth === 0 ? "" : ` d-${Math.min(row.depth, MAX_INDENT_LEVELS)}`;
  const group = row.group;
  return (
    <div
      class={`row r-${row.source}${level}${depth}${group?.muted ? " muted" : ""}${hit ? " hit" : ""}`}
      data-testid="log-row"
      data-number={row.number}
      data-source={row.source}
      data-time={clock && row.time > 0 ? clockTime(row.time) : ""}
    >
      {row.level !== undefined && <span class="level" data-level={row.level.slice(0, 5)} />}
      {group === null ? (
        row.line.spans.map(renderSpan)
      ) : (
        <GroupHeader group={group} end={end} toggleGroup={toggleGroup} />
      )}
    </div>
  );
}

interface GroupHeaderProps {
  group: Group;
  end: number;
  toggleGroup(group: Group): void;
}

function GroupHeader({ group, end, toggleGroup }: GroupHeaderProps) {
  const rows = group.rowCount(end);
  return (
    <button
      type="button"
      class="fold"
      data-testid="log-group"
      aria-expanded={!group.folded}
      onClick={() => toggleGroup(group)}
    >
      {group.title}
      <span class="group-rows">
        {amount(rows)} {rows === 1 ? "line" : "lines"}
      </span>
      {group.errors > 0 && (
        <span class="group-errors">
          {amount(group.errors)} {group.errors === 1 ? "error" : "errors"}
        </span>
      )}
    </button>
  );
}

function renderSpan({ text, style }: Span, at: number) {
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
