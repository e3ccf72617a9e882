// The rows of one variation, of which only those on screen exist as elements.
//
// The list is a tall empty block in which the drawn rows are moved to their place. When rows above the reader's come, are dropped
// or folded away, the scroll position moves along, so that the text under their eyes stays. Close to either end of the window
// what lies beyond it is asked for.

import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Group } from "../core/groups";
import type { Past } from "../core/history";
import type { Lane, Row } from "../core/log";
import { amount } from "../core/time";
import { Follow, ROW_HEIGHT, visibleRows } from "../core/viewport";
import { LogRow } from "./LogRow";

/** What the style sheet adds to a line: the time before it, and the space around it. */
const CLOCK_COLUMNS = 14;
const LEVEL_COLUMNS = 7;
const INDENT_COLUMNS = 8;
const MARGIN_PX = 48;

/** How close to the end of the window more is asked for. */
const NEAR_EDGE_PX = 100 * ROW_HEIGHT;

interface LogListProps {
  lane: Lane;
  past: Past;
  clock: boolean;
  /** Changes with every change of the lane, which is itself not a signal. */
  revision: number;
}

export function LogList({ lane, past, clock, revision }: LogListProps) {
  const box = useRef<HTMLDivElement>(null);
  const view = useSignal({ scrollTop: 0, height: 0 });
  const [follow] = useState(() => new Follow());
  const folds = useSignal(0);
  /** The row at the top of the box, and at which place it was. */
  const top = useRef({ row: 0, place: 0 });

  const { end } = lane.rows;
  const shown = lane.shown();
  const dropped = lane.older !== null ? 1 : 0;
  const count = shown.count + dropped;
  const { height } = view.value;
  const scrollTop = follow.following ? Math.max(0, count * ROW_HEIGHT - height) : view.value.scrollTop;
  const { from, to } = visibleRows({ scrollTop, height }, count);

  const place = (element: HTMLDivElement, scrollTop: number) => {
    element.scrollTop = scrollTop;
    follow.placed(element.scrollTop, element.clientHeight);
  };

  const noteTop = (element: HTMLDivElement) => {
    const at = Math.floor(element.scrollTop / ROW_HEIGHT);
    top.current = { row: shown.rowAt(Math.max(0, at - dropped)), place: Math.max(at, dropped) };
  };

  const scrolledTo = (element: HTMLDivElement) => {
    follow.scrolled(element.scrollTop, element.clientHeight, element.scrollHeight, end);
    if (lane.newer !== null) {
      // The end of the window is not that of the run: to stick to it would load all that lies between.
      follow.stay(end);
    }
  };

  const loadNear = (element: HTMLDivElement) => {
    if (lane.older !== null && element.scrollTop < NEAR_EDGE_PX) {
      void past.older();
    } else if (element.scrollTop + element.clientHeight > element.scrollHeight - NEAR_EDGE_PX) {
      void past.newer();
    }
  };

  // `revision` stands for the lane, which changes in place.
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) {
      return;
    }
    if (lane.target !== null) {
      follow.stay(end);
      const at = shown.placeOf(lane.target) + dropped;
      lane.target = null;
      place(element, Math.max(0, at * ROW_HEIGHT - height / 3));
      noteTop(element);
      view.value = { scrollTop: element.scrollTop, height };
      return;
    }
    // The reader may have scrolled since the last event that told so; to overrule them here would tear the list away.
    scrolledTo(element);
    if (follow.following) {
      place(element, element.scrollHeight);
    } else {
      const moved = shown.placeOf(top.current.row) + dropped - top.current.place;
      if (moved !== 0) {
        place(element, element.scrollTop + moved * ROW_HEIGHT);
      }
    }
    noteTop(element);
    loadNear(element);
  }, [revision, height, follow, folds.value]);

  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) {
      return;
    }
    const observer = new ResizeObserver(() => {
      view.value = { scrollTop: element.scrollTop, height: element.clientHeight };
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, [view]);

  const scrolled = () => {
    const element = box.current;
    if (element !== null) {
      scrolledTo(element);
      noteTop(element);
      loadNear(element);
      view.value = { scrollTop: element.scrollTop, height: element.clientHeight };
    }
  };

  const fold = (group: Group) => {
    group.toggle();
    // Who opens a group that is over wants to see it, not the end of the list.
    if (group.end !== null) {
      follow.stay(end);
      if (box.current !== null) {
        view.value = { scrollTop: box.current.scrollTop, height: box.current.clientHeight };
      }
    }
    folds.value += 1;
  };

  const jump = async () => {
    await past.end();
    follow.jump();
    if (box.current !== null) {
      place(box.current, box.current.scrollHeight);
      box.current.focus();
    }
  };

  const rows: Row[] = [];
  for (let at = Math.max(from, dropped); at < to; at += 1) {
    const row = lane.rows.get(shown.rowAt(at - dropped));
    if (row !== undefined) {
      rows.push(row);
    }
  }
  // Long lines widen the list at once, not only when they are drawn.
  const beside = (clock ? CLOCK_COLUMNS : 0) + (lane.hasLevels ? LEVEL_COLUMNS : 0) + INDENT_COLUMNS;
  const width = `calc(${lane.columns + beside}ch + ${MARGIN_PX}px)`;
  const unread = follow.unread(end);
  return (
    <div class="list">
      <div
        ref={box}
        class={clock ? "rows with-clock" : "rows"}
        role="log"
        aria-live="off"
        aria-label={`Lines of variation ${lane.variation}`}
        data-testid="log-list"
        data-following={follow.following}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard.
        tabIndex={0}
        onScroll={scrolled}
        onKeyDown={(event) => {
          // The browser would glide to where the end is now, and lines that come on the way would leave it short.
          if (event.key === "End") {
            event.preventDefault();
            void jump();
          }
        }}
      >
        <div class="tall" style={{ height: `${count * ROW_HEIGHT}px`, minWidth: width }}>
          <div class="drawn" style={{ transform: `translateY(${from * ROW_HEIGHT}px)` }}>
            {dropped > from && (
              <div class="row dropped" data-testid="log-older">
                {past.loading === "older" ? "Loading earlier lines …" : "There are earlier lines"}
              </div>
            )}
            {rows.map((row) => (
              <LogRow key={row.number} row={row} clock={clock} end={end} hit={row.number === lane.hit} fold={fold} />
            ))}
          </div>
        </div>
        {count === 0 && <p class="hint nothing">Nothing printed yet.</p>}
        {past.problem !== "" && (
          <p class="problem edge" role="alert">
            {past.problem}{" "}
            <button type="button" class="plain" onClick={() => past.retry()}>
              Try again
            </button>
          </p>
        )}
      </div>
      {(!follow.following || lane.newer !== null) && (
        <button type="button" class="jump" data-testid="jump-to-end" onClick={() => void jump()}>
          {unread > 0 && lane.newer === null
            ? `${amount(unread)} new ${unread === 1 ? "line" : "lines"}, jump to end`
            : "Jump to end"}
        </button>
      )}
    </div>
  );
}
