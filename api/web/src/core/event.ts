// The events of a run as the gateway sends them: one JSON object each, checked as little as the page needs.
//
// An event names itself twice: `id` is where it stands in its run, (`producer`, `seq`) is what it is. Signals of the
// connection itself (ready, degraded, closing, end) and a gap made by the gateway have no producer.

export type RunStatus = "pending" | "running" | "succeeded" | "failed" | "cancelled" | "lost";

export interface RunEvent {
  kind: string;
  variation?: number;
  time?: number;
  id?: string;
  producer?: string;
  seq?: number;
  /** output and log: a chunk of text, or base64 when it is not UTF-8. In a stored gap `bytes` counts what is missing. */
  text?: string;
  bytes?: string | number;
  stream?: string;
  level?: string;
  /** What a line says, without all that stands around it. `format` json: `text` is a JSON object with more fields. */
  message?: string;
  format?: string;
  group?: GroupEvent;
  /** status */
  status?: RunStatus;
  exit_code?: number | null;
  signal?: number | null;
  /** heartbeat: a sign of life of an agent, which is no event of the run */
  agent?: string;
  published?: number;
  unstored?: number;
  quiet_ms?: number;
  rss?: number;
  cpu?: number;
  /** progress */
  label?: string;
  current?: number;
  total?: number;
  state?: "error" | "paused" | "busy" | "cleared";
  /** gap */
  after?: string;
  next?: string;
  count?: number | null;
  reason?: string;
  /** degraded */
  what?: string;
}

/** The chunk is a marker: lines that belong together begin or end here, or are to be shown. */
export interface GroupEvent {
  state: "start" | "open" | "end";
  id: string;
  title?: string;
  collapsed?: boolean;
  muted?: boolean;
}

/** The kinds the page asks for; `gap` and the signals of the connection come whatever is asked. */
export const CHANNELS = ["output", "log", "status", "progress", "heartbeat"] as const;

/** Reads the data of one frame. What cannot be read is shown as a gap, not passed over. */
export function parseEvent(data: string): RunEvent {
  try {
    const value: unknown = JSON.parse(data);
    if (typeof value === "object" && value !== null && typeof (value as RunEvent).kind === "string") {
      return value as RunEvent;
    }
  } catch {
    // Falls through to the same answer as JSON of another shape.
  }
  return { kind: "gap", count: 1, reason: "unreadable" };
}

/** True if one event id stands behind another. */
export function isAfter(id: string, other: string): boolean {
  const [epoch = 0, seq = 0] = id.split("-").map(Number);
  const [otherEpoch = 0, otherSeq = 0] = other.split("-").map(Number);
  return epoch > otherEpoch || (epoch === otherEpoch && seq > otherSeq);
}

/** The cursor behind which an event comes next. */
export function cursorBefore(id: string): string {
  const [epoch = 0, seq = 0] = id.split("-").map(Number);
  return `${epoch}-${Math.max(0, seq - 1)}`;
}

export function decodeBase64(text: string): Uint8Array {
  let binary: string;
  try {
    binary = atob(text);
  } catch {
    return new TextEncoder().encode("\uFFFD");
  }
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) {
    bytes[i] = binary.charCodeAt(i);
  }
  return bytes;
}

export function isFinal(status: RunStatus | undefined): boolean {
  // `lost` is not final: its agent may come back.
  return status === "succeeded" || status === "failed" || status === "cancelled";
}
