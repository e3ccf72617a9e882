// How states look: of a run or a variation, and of the connection. A colour never stands without its word.

import type { RunStatus } from "../core/event";
import { missingEvents, type Run } from "../core/runs";
import type { LinkState } from "../core/stream";
import { amount } from "../core/time";

export function StatusBadge({ status }: { status: RunStatus }) {
  return <span class={`status s-${status}`}>{status}</span>;
}

const WORDS: Record<LinkState, string> = {
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
  state: LinkState;
  detail: string;
  run: Run | null;
}

export function Connection({ state, detail, run }: ConnectionProps) {
  const more = state === "ended" && run !== null ? completeText(run) : detail;
  return (
    <output class={`connection c-${state}`} data-testid="connection-state" data-state={state} aria-live="polite">
      {WORDS[state]}
      {more === "" ? "" : `: ${more}`}
    </output>
  );
}

function completeText(run: Run): string {
  const missing = missingEvents(run);
  const lacks = missing > 0 ? `, ${amount(missing)} missing` : "";
  return `${amount(run.events)} events${lacks}, ${run.sealed ? "sealed" : "not sealed yet"}`;
}

/** Nothing while the run goes on: only a run that is over can be whole. */
export function Seal({ run }: { run: Run }) {
  if (run.sealed) {
    return (
      <span class="seal sealed" title="Everything is stored, and agrees with what the producers counted">
        sealed
      </span>
    );
  }
  return run.ended_at === null ? null : (
    <span class="seal" title="What is stored does not agree with what the producers counted">
      not sealed
    </span>
  );
}
