// The head of one run: name, id, status, seal, counts, and the state of the connection, which is
// always visible.

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { type Run, runTime } from "../core/runs";
import type { ConnectionState } from "../core/stream";
import { amount, bytes, duration } from "../core/time";
import { Connection, Seal, StatusBadge } from "./Status";
import { now, showClock, toggleClock } from "./state";

const COPIED_MS = 1500;

interface RunHeadProps {
  run: Run | null;
  id: string;
  state: ConnectionState;
  detail: string;
  /**
   * Events received over the stream. While the run is live, its description counts fewer of them.
   */
  received: number;
}

export function RunHead({ run, id, state, detail, received }: RunHeadProps) {
  const time = run === null ? null : runTime(run, now.value);
  return (
    <section class="head">
      <div class="title">
        <h1>{run?.name ?? "…"}</h1>
        {run !== null && <StatusBadge status={run.status} />}
        {run !== null && <Seal run={run} />}
        <Connection state={state} detail={detail} run={run} />
      </div>
      <div class="facts">
        <CopyId id={id} />
        {time !== null && <span>{duration(time)}</span>}
        {run !== null && (
          <span>
            {amount(Math.max(run.events, received))} events, {bytes(run.bytes)}
          </span>
        )}
        {run?.redacted === true && (
          <span class="label" title="Parts of what this run printed were masked after they were stored">
            redacted
          </span>
        )}
        {Object.entries(run?.labels ?? {}).map(([key, value]) => (
          <span key={key} class="label">
            {key}={value}
          </span>
        ))}
        <button type="button" class="plain clock" aria-pressed={showClock.value} onClick={toggleClock}>
          Times
        </button>
      </div>
    </section>
  );
}

function CopyId({ id }: { id: string }) {
  const copied = useSignal(false);
  const text = useRef<HTMLElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(id);
      copied.value = true;
      setTimeout(() => {
        copied.value = false;
      }, COPIED_MS);
    } catch {
      // Browsers refuse the clipboard without https. Select the id, so that the reader can copy it.
      if (text.current !== null) {
        getSelection()?.selectAllChildren(text.current);
      }
    }
  };
  return (
    <button type="button" class="plain id" title="Copy the id" onClick={copy}>
      <code ref={text}>{id}</code>
      <span aria-live="polite">{copied.value ? "copied" : "copy"}</span>
    </button>
  );
}
