// Which rows of a long list to render, and whether the list follows its end.
//
// Every row is ROW_HEIGHT_PX high, so everything is arithmetic. The tallest list is 100,000 rows (2
// million pixels), well below the 16 million pixels at which browsers stop. Offsets count from the
// first row that is held; dropping a row moves all of them.

export const ROW_HEIGHT_PX = 20;
/** Rows that are rendered above and below the visible ones. */
const OVERSCAN_ROWS = 12;
/** How close to the end a reader who scrolls down must come for the list to follow. */
const NEAR_END_ROWS = 3;

export interface Viewport {
  readonly scrollTop: number;
  readonly height: number;
}

/** The rows [from, to) to render out of `count`. */
export function rowsToRender(viewport: Viewport, count: number): { from: number; to: number } {
  const from = Math.floor(viewport.scrollTop / ROW_HEIGHT_PX) - OVERSCAN_ROWS;
  const to = Math.ceil((viewport.scrollTop + viewport.height) / ROW_HEIGHT_PX) + OVERSCAN_ROWS;
  const end = Math.min(count, Math.max(to, 0));
  return { from: Math.max(0, Math.min(from, end)), to: end };
}

/**
 * Whether the list follows its end. Only scrolling up by the reader stops it: when rows arrive
 * between a scroll of the page's own and its event, the viewport is no longer at the end although
 * the reader has not moved it. A viewport that grows also moves up, so scrolling up counts only
 * while the height stays the same.
 */
export class FollowMode {
  following = true;
  /** The number of the next row when following stopped: rows from there on are unread. */
  private stoppedAt = 0;
  private lastTop = 0;
  private lastHeight = 0;

  onScroll(scrollTop: number, height: number, contentHeight: number, end: number): void {
    // The end moves on while a reader scrolls down to it, so close to the end counts as at the end.
    const near = scrollTop > this.lastTop ? NEAR_END_ROWS * ROW_HEIGHT_PX : ROW_HEIGHT_PX / 2;
    const atEnd = scrollTop + height >= contentHeight - near;
    if (atEnd) {
      this.following = true;
    } else if (scrollTop < this.lastTop && height === this.lastHeight) {
      this.stop(end);
    }
    this.setPosition(scrollTop, height);
  }

  /** Notes a scroll position that the page itself has set. */
  setPosition(scrollTop: number, height: number): void {
    this.lastTop = scrollTop;
    this.lastHeight = height;
  }

  /** Stops following, because the reader looks at something other than the end. */
  stop(end: number): void {
    if (this.following) {
      this.following = false;
      this.stoppedAt = end;
    }
  }

  resume(): void {
    this.following = true;
  }

  unreadRows(end: number): number {
    return this.following ? 0 : Math.max(0, end - this.stoppedAt);
  }
}
