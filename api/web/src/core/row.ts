// One row of a variation's log: a line of text, and what the page needs to know about it.

import type { Group } from "./groups";
import type { Line } from "./line";

/** `notice`: a line that Runcast itself adds, such as a status. `group`: the header of a group. */
export type Source = "stdout" | "stderr" | "notice" | "gap" | "group";

export interface Row {
  /** Its number in the ring of rows. */
  number: number;
  /** The id of the event that began the row. */
  readonly id: string | undefined;
  /** The name of the stream that writes the row; undefined for rows that no stream writes. */
  readonly stream: string | undefined;
  readonly time: number;
  readonly source: Source;
  level: string | undefined;
  /** How many groups the row is nested in. */
  readonly depth: number;
  /** The group that this row is the header of. */
  group: Group | null;
  line: Line;
}
