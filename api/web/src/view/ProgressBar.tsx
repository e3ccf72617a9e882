// The progress that the work of one variation reports: a bar for each label.

import type { RunEvent } from "../core/event";
import type { VariationLog } from "../core/log";
import { amount } from "../core/time";

export function ProgressBars({ log }: { log: VariationLog }) {
  return (
    <>
      {[...log.progress].map(([label, event]) => (
        <span key={label} class={`progress progress-${event.state ?? "on"}`} data-testid="progress">
          <span>{label}</span>
          <ProgressBar label={label} event={event} />
          <span>{progressText(event)}</span>
        </span>
      ))}
    </>
  );
}

function ProgressBar({ label, event: { current, total, state } }: { label: string; event: RunEvent }) {
  // Without a value, the browser draws an indeterminate bar.
  const hasEnd = total !== undefined && total > 0 && state !== "busy";
  return <progress aria-label={label} {...(hasEnd ? { value: Math.min(current ?? 0, total), max: total } : {})} />;
}

function progressText({ current, total, state }: RunEvent): string {
  if (state === "busy") {
    return "in progress";
  }
  const stateText = state === undefined ? "" : ` ${state}`;
  const done = amount(current ?? 0);
  return `${total === 100 ? `${done}%` : total === undefined ? done : `${done} / ${amount(total)}`}${stateText}`;
}
