// One run: what it is, how the connection to it is, and its variations, side by side or as tabs.

import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Lane } from "../core/log";
import { RunWatch } from "../core/run_watch";
import type { Run } from "../core/runs";
import { runsHash } from "../core/url";
import { LaneView } from "./LogView";
import { RunHead } from "./RunHead";
import { Places, type Wanted } from "./SearchBar";
import { session, wide } from "./state";
import { LaneTabs } from "./VariationTabs";

const COLUMNS = 2;

export function RunView({ id }: { id: string }) {
  // The watch keeps its data outside of signals, which would cost one for each line; this one says that it changed.
  const revision = useSignal(0);
  const chosen = useSignal(0);
  const watch = useMemo(() => new RunWatch(id, watchHooks(revision)), [id, revision]);
  useEffect(() => {
    watch.start();
    return () => watch.stop();
  }, [watch]);

  const shown = revision.value;
  const { run, store, stream } = watch;
  useEffect(() => {
    document.title = run === null ? "Run · Runcast" : `${run.name} · ${run.status} · Runcast`;
  }, [run]);

  if (run === null && stream.state === "failed") {
    return (
      <main class="quiet" data-testid="connection-state" data-state="failed">
        <p>{stream.detail}</p>
        <a href={runsHash()}>All runs</a>
      </main>
    );
  }
  const lanes = lanesOf(run, store.lanes);
  const columns = lanes.length <= COLUMNS && (lanes.length === 1 || wide.value);
  const active = lanes.find((lane) => lane.variation === chosen.value) ?? lanes[0];
  const visible = columns ? lanes : lanes.filter((lane) => lane === active);
  return (
    <main class="run">
      <RunHead run={run} id={id} state={stream.state} detail={stream.detail} seen={store.events} />
      <Places id={id} show={show} />
      {!columns && <LaneTabs lanes={lanes} run={run} chosen={chosen} />}
      <div class={`lanes lanes-${visible.length}`}>
        {visible.map((lane) => (
          <LaneView
            key={lane.variation}
            lane={lane}
            past={watch.past(lane)}
            pulses={store.pulses}
            run={run}
            revision={shown}
          />
        ))}
      </div>
    </main>
  );

  /** Brings a place of one variation into view, or of all that are shown. */
  function show(place: Wanted, variation: number | null) {
    if (variation !== null && !columns) {
      chosen.value = variation;
    }
    for (const lane of variation === null ? visible : [store.lane(variation)]) {
      void watch.past(lane).show(place);
    }
  }

  /** The variations the run says it has, and any other that events came for. */
  function lanesOf(of: Run | null, held: ReadonlyMap<number, Lane>): Lane[] {
    const known = of?.variations.map((variation) => variation.index) ?? [];
    const all = [...new Set([...known, ...held.keys()])].sort((a, b) => a - b);
    return (all.length > 0 ? all : [0]).map((variation) => store.lane(variation));
  }
}

function watchHooks(revision: Signal<number>) {
  return {
    changed: () => {
      revision.value += 1;
    },
    signedOut: () => {
      session.value = null;
    },
  };
}
