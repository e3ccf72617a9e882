// One variation: a header line with its state, and its log.

import { isFinal } from "../core/event";
import type { LatestHeartbeats } from "../core/heartbeat";
import type { HistoryPager } from "../core/history";
import type { VariationLog } from "../core/log";
import type { Run, Variation } from "../core/runs";
import { amount } from "../core/time";
import { LogList } from "./LogList";
import { ProgressBars } from "./ProgressBar";
import { StatusBadge } from "./Status";
import { now, showClock } from "./state";

interface LogViewProps {
  log: VariationLog;
  heartbeats: LatestHeartbeats;
  pager: HistoryPager;
  run: Run | null;
  revision: number;
}

export function LogView({ log, pager, heartbeats, run, revision }: LogViewProps) {
  const described = run?.variations.find((variation) => variation.index === log.variation);
  const status = variationStatus(log, described);
  return (
    <section class="variation" data-testid={`variation-${log.variation}`} aria-label={`Variation ${log.variation}`}>
      <header>
        <span>variation {log.variation}</span>
        <StatusBadge status={status} />
        <Outcome log={log} described={described} />
        {!isFinal(status) && <AgentHealthText variation={log.variation} heartbeats={heartbeats} />}
        <ProgressBars log={log} />
        <span class="count">
          {amount(log.rows.length)}
          {log.older !== null || log.newer !== null ? "+" : ""} lines
        </span>
      </header>
      <LogList log={log} pager={pager} clock={showClock.value} revision={revision} />
    </section>
  );
}

/**
 * Status events arrive before the run's description has them; only the description knows `lost`.
 */
export function variationStatus(log: VariationLog, described: Variation | undefined) {
  return described?.status === "lost" ? "lost" : (log.status ?? described?.status ?? "pending");
}

function AgentHealthText({ variation, heartbeats }: { variation: number; heartbeats: LatestHeartbeats }) {
  const health = heartbeats.health(variation, now.value);
  return health === null ? null : (
    <span class={`heartbeat heartbeat-${health}`} data-testid={`heartbeat-${variation}`} data-health={health}>
      {heartbeats.text(variation, now.value)}
    </span>
  );
}

function Outcome({ log, described }: { log: VariationLog; described: Variation | undefined }) {
  const code = log.exitCode ?? described?.exit_code ?? null;
  const missing = described?.missing ?? 0;
  return (
    <>
      {log.signal !== null && <span>signal {log.signal}</span>}
      {log.signal === null && code !== null && <span>exit code {code}</span>}
      {missing > 0 && <span class="problem">{amount(missing)} events missing</span>}
    </>
  );
}
