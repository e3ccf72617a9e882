// The texts of rows that Runcast itself adds to a log: gaps and statuses.

import type { RunEvent } from "./event";

export function gapLabel(event: RunEvent): string {
  const reason = event.reason ?? "unknown reason";
  if (reason === "reborn") {
    return "the stream was rebuilt here; events that are sent again are shown once";
  }
  if (reason === "cap" && event.count != null) {
    return `${event.count.toLocaleString("en")} events omitted here: the output exceeds its limit (--max-output)`;
  }
  if (event.count == null) {
    return `events may be missing here: ${reason}`;
  }
  return `${event.count.toLocaleString("en")} ${event.count === 1 ? "event" : "events"} missing: ${reason}`;
}

export function statusLabel(event: RunEvent): string {
  const outcome =
    event.signal != null ? `, signal ${event.signal}` : event.exit_code != null ? `, exit code ${event.exit_code}` : "";
  return `status: ${event.status ?? "unknown"}${outcome}`;
}
