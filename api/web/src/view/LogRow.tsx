// One row. Its text is text nodes, whatever the run printed; the time is drawn by the style sheet, so that it is neither
// copied nor read as part of the line.

import { styleAttributes } from "../core/ansi";
import type { Row } from "../core/lane";
import type { Span } from "../core/line";
import { clock as clockOf } from "../core/time";

interface LogRowProps {
  row: Row;
  clock: boolean;
}

export function LogRow({ row, clock }: LogRowProps) {
  const level = row.level === undefined ? "" : ` l-${row.level}`;
  return (
    <div
      class={`row r-${row.source}${level}`}
      data-testid="log-row"
      data-number={row.number}
      data-source={row.source}
      data-time={clock && row.time > 0 ? clockOf(row.time) : ""}
    >
      {row.line.spans.map(drawSpan)}
    </div>
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
