// How far the work of one variation has come, as it says itself: a bar for each label.

import type { RunEvent } from "../core/event";
import type { Lane } from "../core/log";
import { amount } from "../core/time";

export function LaneProgress({ lane }: { lane: Lane }) {
  return (
    <>
      {[...lane.progress].map(([label, event]) => (
        <span key={label} class={`progress p-${event.state ?? "on"}`} data-testid="lane-progress">
          <span>{label}</span>
          <Bar label={label} event={event} />
          <span>{progressText(event)}</span>
        </span>
      ))}
    </>
  );
}

function Bar({ label, event: { current, total, state } }: { label: string; event: RunEvent }) {
  // Without a value the bar says that the end is not known.
  const known = total !== undefined && total > 0 && state !== "busy";
  return <progress aria-label={label} {...(known ? { value: Math.min(current ?? 0, total), max: total } : {})} />;
}

function progressText({ current, total, state }: RunEvent): string {
  const word = state === undefined || state === "busy" ? "" : ` ${state}`;
  if (state === "busy") {
    return "at work";
  }
  const done = amount(current ?? 0);
  return `${total === 100 ? `${done}%` : total === undefined ? done : `${done} / ${amount(total)}`}${word}`;
}
