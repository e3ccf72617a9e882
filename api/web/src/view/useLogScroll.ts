// The scrolling of a log: which of its rows to render, following the end, loading pages near the
// edges of the window, and keeping the text in place while rows come and go above it.
//
// When rows above the viewport are added, dropped or folded, the scroll position moves with them.
// For this, `anchor` holds the row at the top of the viewport and the index that it had.

import { type Signal, useSignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Group, UnfoldedRows } from "../core/groups";
import type { HistoryPager } from "../core/history";
import type { VariationLog } from "../core/log";
import { FollowMode, ROW_HEIGHT_PX, rowsToRender, type Viewport } from "../core/viewport";

/** How close to an edge of the window the next page is loaded. */
const NEAR_EDGE_PX = 100 * ROW_HEIGHT_PX;

export interface LogScroll {
  box: RefObject<HTMLDivElement | null>;
  follow: FollowMode;
  unfolded: UnfoldedRows;
  /**
   * Rows that the list shows before those of the log: 1 if it says that there are earlier lines.
   */
  noticeRows: number;
  /** All rows of the list. */
  count: number;
  /** The rows [from, to) of the list to render. */
  from: number;
  to: number;
  onScroll(): void;
  toggleGroup(group: Group): void;
  jumpToEnd(): Promise<void>;
}

/** What the handlers of one rendering work on. */
interface Rendering {
  log: VariationLog;
  pager: HistoryPager;
  follow: FollowMode;
  unfolded: UnfoldedRows;
  noticeRows: number;
  /** The number that the log's next row will get. */
  end: number;
  anchor: { current: { row: number; index: number } };
  viewport: Signal<Viewport>;
}

/** `revision` changes with every change of the log, which is not a signal itself. */
export function useLogScroll(log: VariationLog, pager: HistoryPager, revision: number): LogScroll {
  const box = useRef<HTMLDivElement>(null);
  const viewport = useSignal<Viewport>({ scrollTop: 0, height: 0 });
  const [follow] = useState(() => new FollowMode());
  const folds = useSignal(0);
  const anchor = useRef({ row: 0, index: 0 });

  const { end } = log.rows;
  const unfolded = log.unfoldedRows();
  const noticeRows = log.older !== null ? 1 : 0;
  const count = unfolded.count + noticeRows;
  const { height } = viewport.value;
  const scrollTop = follow.following ? Math.max(0, count * ROW_HEIGHT_PX - height) : viewport.value.scrollTop;
  const { from, to } = rowsToRender({ scrollTop, height }, count);
  const rendering: Rendering = { log, pager, follow, unfolded, noticeRows, end, anchor, viewport };

  useLayoutEffect(() => {
    if (box.current !== null) {
      afterRender(rendering, box.current);
    }
  }, [revision, height, follow, folds.value]);

  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) {
      return;
    }
    const observer = new ResizeObserver(() => noteViewport(viewport, element));
    observer.observe(element);
    return () => observer.disconnect();
  }, [viewport]);

  const onScroll = () => {
    const element = box.current;
    if (element !== null) {
      updateFollow(rendering, element);
      noteAnchor(rendering, element);
      loadNearEdge(rendering, element);
      noteViewport(viewport, element);
    }
  };

  const toggleGroup = (group: Group) => {
    group.toggle();
    // A reader who opens a group that has ended wants to see the group, not the end of the list.
    if (group.end !== null) {
      follow.stop(end);
      if (box.current !== null) {
        noteViewport(viewport, box.current);
      }
    }
    folds.value += 1;
  };

  const jumpToEnd = async () => {
    await pager.goToEnd();
    follow.resume();
    if (box.current !== null) {
      setScrollTop(rendering, box.current, box.current.scrollHeight);
      box.current.focus();
    }
  };

  return { box, follow, unfolded, noticeRows, count, from, to, onScroll, toggleGroup, jumpToEnd };
}

/** Puts the list where it belongs after its rows have changed. */
function afterRender(rendering: Rendering, element: HTMLDivElement): void {
  const { log, follow, unfolded, noticeRows, end, anchor, viewport } = rendering;
  // The reader went to a row: show it a third of the height below the top.
  if (log.target !== null) {
    follow.stop(end);
    const index = unfolded.indexOf(log.target) + noticeRows;
    const { height } = viewport.value;
    log.target = null;
    setScrollTop(rendering, element, Math.max(0, index * ROW_HEIGHT_PX - height / 3));
    noteAnchor(rendering, element);
    viewport.value = { scrollTop: element.scrollTop, height };
    return;
  }
  // The reader may have scrolled since the last scroll event. Overruling that here would move the
  // list away under their eyes.
  updateFollow(rendering, element);
  // Follow the end, or keep the row at the top where it was.
  if (follow.following) {
    setScrollTop(rendering, element, element.scrollHeight);
  } else {
    const moved = unfolded.indexOf(anchor.current.row) + noticeRows - anchor.current.index;
    if (moved !== 0) {
      setScrollTop(rendering, element, element.scrollTop + moved * ROW_HEIGHT_PX);
    }
  }
  noteAnchor(rendering, element);
  loadNearEdge(rendering, element);
}

function setScrollTop({ follow }: Rendering, element: HTMLDivElement, scrollTop: number): void {
  element.scrollTop = scrollTop;
  follow.setPosition(element.scrollTop, element.clientHeight);
}

function noteViewport(viewport: Signal<Viewport>, element: HTMLDivElement): void {
  viewport.value = { scrollTop: element.scrollTop, height: element.clientHeight };
}

function noteAnchor({ unfolded, noticeRows, anchor }: Rendering, element: HTMLDivElement): void {
  const index = Math.floor(element.scrollTop / ROW_HEIGHT_PX);
  anchor.current = { row: unfolded.rowAt(Math.max(0, index - noticeRows)), index: Math.max(index, noticeRows) };
}

function updateFollow({ log, follow, end }: Rendering, element: HTMLDivElement): void {
  follow.onScroll(element.scrollTop, element.clientHeight, element.scrollHeight, end);
  if (log.newer !== null) {
    // The window ends before the run does: following its end would load everything in between.
    follow.stop(end);
  }
}

function loadNearEdge({ log, pager }: Rendering, element: HTMLDivElement): void {
  if (log.older !== null && element.scrollTop < NEAR_EDGE_PX) {
    void pager.loadOlder();
  } else if (element.scrollTop + element.clientHeight > element.scrollHeight - NEAR_EDGE_PX) {
    void pager.loadNewer();
  }
}
