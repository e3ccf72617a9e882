// Which rows of a long list are on screen, and whether the list follows its end.
//
// Every row is ROW_HEIGHT high, so all of it is arithmetic. The tallest list is 100,000 rows (2 million pixels), well below
// the 16 million at which browsers stop. Offsets count from the first row still held; a dropped row moves all of them.

export const ROW_HEIGHT = 20;
const OVERSCAN = 12;
const NEAR_ROWS = 3;

export interface Viewport {
  readonly scrollTop: number;
  readonly height: number;
}

/** The rows [from, to) to draw out of `count`. */
export function visibleRows(view: Viewport, count: number): { from: number; to: number } {
  const from = Math.floor(view.scrollTop / ROW_HEIGHT) - OVERSCAN;
  const to = Math.ceil((view.scrollTop + view.height) / ROW_HEIGHT) + OVERSCAN;
  const end = Math.min(count, Math.max(to, 0));
  return { from: Math.max(0, Math.min(from, end)), to: end };
}

/**
 * Whether the list sticks to its end. Only an upward move of the reader lets go: when rows arrive between a scroll of ours
 * and its event, the view is not at the end any more although nobody moved it. A window that grows also moves the view up,
 * so a move counts only while the height stays.
 */
export class Follow {
  following = true;
  /** The number of the next row when the reader let go: what is above it is new to them. */
  private leftAt = 0;
  private lastTop = 0;
  private lastHeight = 0;

  scrolled(scrollTop: number, height: number, contentHeight: number, end: number): void {
    // Whoever moves down aims at an end that moves on meanwhile; close to it is meant as at it.
    const near = scrollTop > this.lastTop ? NEAR_ROWS * ROW_HEIGHT : ROW_HEIGHT / 2;
    const atEnd = scrollTop + height >= contentHeight - near;
    if (atEnd) {
      this.following = true;
    } else if (this.following && scrollTop < this.lastTop && height === this.lastHeight) {
      this.following = false;
      this.leftAt = end;
    }
    this.placed(scrollTop, height);
  }

  /** Tells of a scroll position that the page itself has set. */
  placed(scrollTop: number, height: number): void {
    this.lastTop = scrollTop;
    this.lastHeight = height;
  }

  /** Lets go because the reader looks at something else than the end. */
  stay(end: number): void {
    if (this.following) {
      this.following = false;
      this.leftAt = end;
    }
  }

  jump(): void {
    this.following = true;
  }

  unread(end: number): number {
    return this.following ? 0 : Math.max(0, end - this.leftAt);
  }
}
