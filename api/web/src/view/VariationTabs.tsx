// Tabs to choose a variation where there is no room for all of them. Arrow keys move between tabs, as in any tab list.

import type { Signal } from "@preact/signals";
import type { Lane } from "../core/log";
import type { Run } from "../core/runs";
import { laneStatus } from "./LogView";

interface LaneTabsProps {
  lanes: Lane[];
  run: Run | null;
  chosen: Signal<number>;
}

export function LaneTabs({ lanes, run, chosen }: LaneTabsProps) {
  const move = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) {
      return;
    }
    const at = lanes.findIndex((lane) => lane.variation === chosen.value);
    const next = lanes[(at + step + lanes.length) % lanes.length];
    if (next !== undefined) {
      event.preventDefault();
      chosen.value = next.variation;
      document.getElementById(tabId(next.variation))?.focus();
    }
  };
  return (
    <div class="tabs" role="tablist" aria-label="Variations" onKeyDown={move}>
      {lanes.map((lane) => {
        const selected = lane.variation === chosen.value;
        const described = run?.variations.find((variation) => variation.index === lane.variation);
        const status = laneStatus(lane, described);
        return (
          <button
            key={lane.variation}
            id={tabId(lane.variation)}
            type="button"
            role="tab"
            aria-selected={selected}
            tabIndex={selected ? 0 : -1}
            data-testid={`variation-tab-${lane.variation}`}
            onClick={() => {
              chosen.value = lane.variation;
            }}
          >
            variation {lane.variation} <span class={`status s-${status}`}>{status}</span>
          </button>
        );
      })}
    </div>
  );
}

function tabId(variation: number): string {
  return `tab-${variation}`;
}
