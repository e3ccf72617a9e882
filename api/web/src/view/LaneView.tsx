// One variation: its state in a line, and its rows.

import type { Lane } from "../core/lane";
import type { Run, Variation } from "../core/runs";
import { amount } from "../core/time";
import { LaneProgress } from "./LaneProgress";
import { LogList } from "./LogList";
import { StatusBadge } from "./Status";
import { clockShown } from "./state";

interface LaneViewProps {
  lane: Lane;
  run: Run | null;
  id: string;
  revision: number;
}

export function LaneView({ lane, run, id, revision }: LaneViewProps) {
  const described = run?.variations.find((variation) => variation.index === lane.variation);
  return (
    <section class="lane" data-testid={`variation-${lane.variation}`} aria-label={`Variation ${lane.variation}`}>
      <header>
        <span>variation {lane.variation}</span>
        <StatusBadge status={laneStatus(lane, described)} />
        <LaneOutcome lane={lane} described={described} />
        <LaneProgress lane={lane} />
        <span class="count">{amount(lane.rows.end)} lines</span>
      </header>
      <LogList lane={lane} run={id} clock={clockShown.value} revision={revision} />
    </section>
  );
}

/** The event of a status is here before the run's description says the same; `lost` is known by the description alone. */
export function laneStatus(lane: Lane, described: Variation | undefined) {
  return described?.status === "lost" ? "lost" : (lane.status ?? described?.status ?? "pending");
}

function LaneOutcome({ lane, described }: { lane: Lane; described: Variation | undefined }) {
  const code = lane.exitCode ?? described?.exit_code ?? null;
  const missing = described?.missing ?? 0;
  return (
    <>
      {lane.signal !== null && <span>signal {lane.signal}</span>}
      {lane.signal === null && code !== null && <span>exit code {code}</span>}
      {missing > 0 && <span class="problem">{amount(missing)} events missing</span>}
    </>
  );
}
