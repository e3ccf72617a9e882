// What a row says that Runcast itself puts among the lines: a gap, a status.

import type { RunEvent } from "./event";

export function gapText(event: RunEvent): string {
  const reason = event.reason ?? "unknown reason";
  if (reason === "reborn") {
    return "the stream was rebuilt here; what is sent again is shown once";
  }
  if (reason === "cap" && event.count != null) {
    return `${event.count.toLocaleString("en")} events left out here: the output is over its limit (--max-output)`;
  }
  if (event.count == null) {
    return `events may be missing here: ${reason}`;
  }
  return `${event.count.toLocaleString("en")} ${event.count === 1 ? "event" : "events"} missing: ${reason}`;
}

export function statusText(event: RunEvent): string {
  const how =
    event.signal != null ? `, signal ${event.signal}` : event.exit_code != null ? `, exit code ${event.exit_code}` : "";
  return `status: ${event.status ?? "unknown"}${how}`;
}
