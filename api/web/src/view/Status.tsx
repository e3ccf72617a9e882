// Badges for the status of a run or a variation, for the connection and for the seal. A colour
// never stands without a word.

import type { RunStatus } from "../core/event";
import { missingEvents, type Run } from "../core/runs";
import type { ConnectionState } from "../core/stream";
import { amount } from "../core/time";

export function StatusBadge({ status }: { status: RunStatus }) {
  return <span class={`status s-${status}`}>{status}</span>;
}

const STATE_LABELS: Record<ConnectionState, string> = {
  connecting: "connecting",
  "catching-up": "catching up",
  live: "live",
  reconnecting: "reconnecting",
  degraded: "degraded",
  draining: "server draining, reconnecting",
  ended: "complete",
  failed: "stopped",
};

interface ConnectionProps {
  state: ConnectionState;
  detail: string;
  run: Run | null;
}

export function Connection({ state, detail, run }: ConnectionProps) {
  const details = state === "ended" && run !== null ? completeText(run) : detail;
  return (
    <output class={`connection c-${state}`} data-testid="connection-state" data-state={state} aria-live="polite">
      {STATE_LABELS[state]}
      {details === "" ? "" : `: ${details}`}
    </output>
  );
}

function completeText(run: Run): string {
  const missing = missingEvents(run);
  const missingText = missing > 0 ? `, ${amount(missing)} missing` : "";
  return `${amount(run.events)} events${missingText}, ${run.sealed ? "sealed" : "not sealed yet"}`;
}

/** Shows nothing while the run goes on, because only a run that is over can be sealed. */
export function Seal({ run }: { run: Run }) {
  if (run.sealed) {
    return (
      <span class="seal sealed" title="Every event is stored, and the stored events match the producers' counts">
        sealed
      </span>
    );
  }
  return run.ended_at === null ? null : (
    <span class="seal" title="The stored events do not match the producers' counts">
      not sealed
    </span>
  );
}
