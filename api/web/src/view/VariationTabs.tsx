// Tabs to choose a variation when the window is too narrow for all of them. Arrow keys move between
// the tabs, as in any tab list.

import type { Signal } from "@preact/signals";
import type { VariationLog } from "../core/log";
import type { Run } from "../core/runs";
import { variationStatus } from "./LogView";

interface VariationTabsProps {
  logs: VariationLog[];
  run: Run | null;
  selected: Signal<number>;
}

export function VariationTabs({ logs, run, selected }: VariationTabsProps) {
  const moveSelection = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) {
      return;
    }
    const at = logs.findIndex((log) => log.variation === selected.value);
    const next = logs[(at + step + logs.length) % logs.length];
    if (next !== undefined) {
      event.preventDefault();
      selected.value = next.variation;
      document.getElementById(tabId(next.variation))?.focus();
    }
  };
  return (
    <div class="tabs" role="tablist" aria-label="Variations" onKeyDown={moveSelection}>
      {logs.map((log) => {
        const isSelected = log.variation === selected.value;
        const described = run?.variations.find((variation) => variation.index === log.variation);
        const status = variationStatus(log, described);
        return (
          <button
            key={log.variation}
            id={tabId(log.variation)}
            type="button"
            role="tab"
            aria-selected={isSelected}
            tabIndex={isSelected ? 0 : -1}
            data-testid={`variation-tab-${log.variation}`}
            onClick={() => {
              selected.value = log.variation;
            }}
          >
            variation {log.variation} <span class={`status s-${status}`}>{status}</span>
          </button>
        );
      })}
    </div>
  );
}

function tabId(variation: number): string {
  return `tab-${variation}`;
}
