// One run: its head with the state of the connection, the search bar, and its variations, side by
// side or as tabs.

import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { LogPosition } from "../core/history";
import type { VariationLog } from "../core/log";
import { RunWatch } from "../core/run_watch";
import type { Run } from "../core/runs";
import { runsHash } from "../core/url";
import { LogView } from "./LogView";
import { RunHead } from "./RunHead";
import { SearchBar } from "./SearchBar";
import { session, wide } from "./state";
import { VariationTabs } from "./VariationTabs";

const MAX_SIDE_BY_SIDE_LOGS = 2;

export function RunView({ id }: { id: string }) {
  // RunWatch keeps its data outside of signals, which would cost one per line; `revision` signals
  // that something has changed.
  const revision = useSignal(0);
  const selected = useSignal(0);
  const redactions = useSignal(0);
  // After a redaction all that was received is outdated, so another watch begins.
  const watched = redactions.value;
  const watch = useMemo(() => new RunWatch(id, watchHooks(revision, redactions)), [id, revision, watched]);
  useEffect(() => {
    watch.start();
    return () => watch.stop();
  }, [watch]);

  const currentRevision = revision.value;
  const { run, store, stream } = watch;
  useEffect(() => {
    document.title = run === null ? "Run · Runcast" : `${run.name} · ${run.status} · Runcast`;
  }, [run]);

  if (run === null && stream.state === "failed") {
    return (
      <main class="centered" data-testid="connection-state" data-state="failed">
        <p>{stream.detail}</p>
        <a href={runsHash()}>All runs</a>
      </main>
    );
  }
  const logs = logsOf(run, store.logs);
  const sideBySide = logs.length <= MAX_SIDE_BY_SIDE_LOGS && (logs.length === 1 || wide.value);
  const active = logs.find((log) => log.variation === selected.value) ?? logs[0];
  const visible = sideBySide ? logs : logs.filter((log) => log === active);
  return (
    <main class="run">
      <RunHead run={run} id={id} state={stream.state} detail={stream.detail} received={store.events} />
      <SearchBar id={id} goTo={goTo} />
      {!sideBySide && <VariationTabs logs={logs} run={run} selected={selected} />}
      <div class={`variations variations-${visible.length}`}>
        {visible.map((log) => (
          <LogView
            key={log.variation}
            log={log}
            pager={watch.pager(log)}
            heartbeats={store.heartbeats}
            run={run}
            revision={currentRevision}
          />
        ))}
      </div>
    </main>
  );

  /** Scrolls one variation to a position, or all visible ones if `variation` is null. */
  function goTo(position: LogPosition, variation: number | null) {
    if (variation !== null && !sideBySide) {
      selected.value = variation;
    }
    for (const log of variation === null ? visible : [store.log(variation)]) {
      void watch.pager(log).goTo(position);
    }
  }

  /** A log for each variation that the description names, and for any other that has events. */
  function logsOf(of: Run | null, stored: ReadonlyMap<number, VariationLog>): VariationLog[] {
    const described = of?.variations.map((variation) => variation.index) ?? [];
    const all = [...new Set([...described, ...stored.keys()])].sort((a, b) => a - b);
    return (all.length > 0 ? all : [0]).map((variation) => store.log(variation));
  }
}

function watchHooks(revision: Signal<number>, redactions: Signal<number>) {
  return {
    redacted: () => {
      redactions.value += 1;
    },
    changed: () => {
      revision.value += 1;
    },
    signedOut: () => {
      session.value = null;
    },
  };
}
