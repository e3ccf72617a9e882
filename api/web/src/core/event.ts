// The events of a run as the gateway sends them: one JSON object each, validated only as far as the
// page needs.
//
// An event has two names: `id` is its position in the run, (`producer`, `seq`) is its identity.
// Signals of the connection (ready, degraded, closing, end) and gaps made by the gateway have no
// producer.

export type RunStatus = "pending" | "running" | "succeeded" | "failed" | "cancelled" | "lost";

export interface RunEvent {
  kind: string;
  variation?: number;
  time?: number;
  id?: string;
  producer?: string;
  seq?: number;
  /**
   * output and log: `text` is a chunk of text, `bytes` is base64 of a chunk that is not UTF-8. In a
   * stored gap, `bytes` is the number of missing bytes.
   */
  text?: string;
  bytes?: string | number;
  stream?: string;
  level?: string;
  /**
   * The message of a log line without its decoration. With `format` json, `text` is a JSON object
   * with more fields.
   */
  message?: string;
  format?: string;
  group?: GroupEvent;
  /** status */
  status?: RunStatus;
  exit_code?: number | null;
  signal?: number | null;
  /** heartbeat of an agent; it is not stored as an event of the run */
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

/** Marks the chunk as the start or the end of a group of lines, or asks to open the group. */
export interface GroupEvent {
  state: "start" | "open" | "end";
  id: string;
  title?: string;
  collapsed?: boolean;
  muted?: boolean;
}

/**
 * The kinds that the page requests. The gateway always sends `gap` and the connection signals too.
 */
export const EVENT_KINDS = ["output", "log", "status", "progress", "heartbeat"] as const;

/** Parses the data of one frame. Data that cannot be parsed becomes a gap, so the page shows it. */
export function parseEvent(data: string): RunEvent {
  try {
    const value: unknown = JSON.parse(data);
    if (typeof value === "object" && value !== null && typeof (value as RunEvent).kind === "string") {
      return value as RunEvent;
    }
  } catch {
    // Handled like JSON of another shape, below.
  }
  return { kind: "gap", count: 1, reason: "unreadable" };
}

/** Whether the event `id` comes after the event `other`. */
export function isAfter(id: string, other: string): boolean {
  const [epoch = 0, seq = 0] = id.split("-").map(Number);
  const [otherEpoch = 0, otherSeq = 0] = other.split("-").map(Number);
  return epoch > otherEpoch || (epoch === otherEpoch && seq > otherSeq);
}

/** The cursor just before an event. */
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
  // A lost run is not final: its agent may come back.
  return status === "succeeded" || status === "failed" || status === "cancelled";
}
