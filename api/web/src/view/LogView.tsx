// One variation: its state in a line, and its rows.

import { isFinal } from "../core/event";
import type { Pulses } from "../core/heartbeat";
import type { Past } from "../core/history";
import type { Lane } from "../core/log";
import type { Run, Variation } from "../core/runs";
import { amount } from "../core/time";
import { LogList } from "./LogList";
import { LaneProgress } from "./ProgressBar";
import { StatusBadge } from "./Status";
import { clockShown, now } from "./state";

interface LaneViewProps {
  lane: Lane;
  pulses: Pulses;
  past: Past;
  run: Run | null;
  revision: number;
}

export function LaneView({ lane, past, pulses, run, revision }: LaneViewProps) {
  const described = run?.variations.find((variation) => variation.index === lane.variation);
  const status = laneStatus(lane, described);
  return (
    <section class="lane" data-testid={`variation-${lane.variation}`} aria-label={`Variation ${lane.variation}`}>
      <header>
        <span>variation {lane.variation}</span>
        <StatusBadge status={status} />
        <LaneOutcome lane={lane} described={described} />
        {!isFinal(status) && <LanePulse variation={lane.variation} pulses={pulses} />}
        <LaneProgress lane={lane} />
        <span class="count">
          {amount(lane.rows.length)}
          {lane.older !== null || lane.newer !== null ? "+" : ""} lines
        </span>
      </header>
      <LogList lane={lane} past={past} clock={clockShown.value} revision={revision} />
    </section>
  );
}

/** The event of a status is here before the run's description says the same; `lost` is known by the description alone. */
export function laneStatus(lane: Lane, described: Variation | undefined) {
  return described?.status === "lost" ? "lost" : (lane.status ?? described?.status ?? "pending");
}

/** Whether its agent lives: of no interest once it has ended. */
function LanePulse({ variation, pulses }: { variation: number; pulses: Pulses }) {
  const health = pulses.health(variation, now.value);
  return health === null ? null : (
    <span class={`pulse p-${health}`} data-testid={`pulse-${variation}`} data-health={health}>
      {pulses.text(variation, now.value)}
    </span>
  );
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
