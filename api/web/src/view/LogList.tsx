// The rows of a log as a list that renders only the visible ones: an empty block as high as all
// rows, in which the rendered rows are moved to their position.

import type { HistoryPager } from "../core/history";
import type { VariationLog } from "../core/log";
import type { Row } from "../core/row";
import { amount } from "../core/time";
import { ROW_HEIGHT_PX } from "../core/viewport";
import { LogRow } from "./LogRow";
import { type LogScroll, useLogScroll } from "./useLogScroll";

/**
 * What the style sheet adds to a line: the time and the level before it, and the space around it.
 */
const CLOCK_COLUMNS = 14;
const LEVEL_COLUMNS = 7;
const INDENT_COLUMNS = 8;
const MARGIN_PX = 48;

interface LogListProps {
  log: VariationLog;
  pager: HistoryPager;
  clock: boolean;
  /** Changes with every change of the log, which is not a signal itself. */
  revision: number;
}

export function LogList({ log, pager, clock, revision }: LogListProps) {
  const scroll = useLogScroll(log, pager, revision);
  const { count, from, jumpToEnd } = scroll;
  // The longest line sets the width of the list, even while it is not rendered.
  const extraColumns = (clock ? CLOCK_COLUMNS : 0) + (log.hasLevels ? LEVEL_COLUMNS : 0) + INDENT_COLUMNS;
  const width = `calc(${log.columns + extraColumns}ch + ${MARGIN_PX}px)`;
  return (
    <div class="list">
      <div
        ref={scroll.box}
        class={clock ? "rows with-clock" : "rows"}
        role="log"
        aria-live="off"
        aria-label={`Lines of variation ${log.variation}`}
        data-testid="log-list"
        data-following={scroll.follow.following}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: scrolling needs keyboard focus.
        tabIndex={0}
        onScroll={scroll.onScroll}
        onKeyDown={(event) => {
          // The browser would glide to the current end, and stop short of lines that come
          // meanwhile.
          if (event.key === "End") {
            event.preventDefault();
            void jumpToEnd();
          }
        }}
      >
        <div class="scroll-content" style={{ height: `${count * ROW_HEIGHT_PX}px`, minWidth: width }}>
          <div class="rendered-rows" style={{ transform: `translateY(${from * ROW_HEIGHT_PX}px)` }}>
            {scroll.noticeRows > from && (
              <div class="row older-notice" data-testid="log-older">
                {pager.loading === "older" ? "Loading earlier lines …" : "There are earlier lines"}
              </div>
            )}
            {rowsOf(log, scroll).map((row) => (
              <LogRow
                key={row.number}
                row={row}
                clock={clock}
                end={log.rows.end}
                hit={row.number === log.hit}
                toggleGroup={scroll.toggleGroup}
              />
            ))}
          </div>
        </div>
        {count === 0 && <p class="hint empty-log">No output yet.</p>}
        {pager.problem !== "" && <LoadProblem pager={pager} />}
      </div>
      <JumpButton log={log} scroll={scroll} />
    </div>
  );
}

/** The rows of the log that are to be rendered. */
function rowsOf(log: VariationLog, { unfolded, noticeRows, from, to }: LogScroll): Row[] {
  const rows: Row[] = [];
  for (let at = Math.max(from, noticeRows); at < to; at += 1) {
    const row = log.rows.get(unfolded.rowAt(at - noticeRows));
    if (row !== undefined) {
      rows.push(row);
    }
  }
  return rows;
}

function LoadProblem({ pager }: { pager: HistoryPager }) {
  return (
    <p class="problem load-problem" role="alert">
      {pager.problem}{" "}
      <button type="button" class="plain" onClick={() => pager.retry()}>
        Try again
      </button>
    </p>
  );
}

/** Shown while the list does not follow the end of the run. */
function JumpButton({ log, scroll }: { log: VariationLog; scroll: LogScroll }) {
  if (scroll.follow.following && log.newer === null) {
    return null;
  }
  const unread = scroll.follow.unreadRows(log.rows.end);
  return (
    <button type="button" class="jump" data-testid="jump-to-end" onClick={() => void scroll.jumpToEnd()}>
      {unread > 0 && log.newer === null
        ? `${amount(unread)} new ${unread === 1 ? "line" : "lines"}, jump to end`
        : "Jump to end"}
    </button>
  );
}
