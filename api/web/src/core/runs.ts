// Descriptions of runs, as the gateway sends them, and values that the page derives from them.

import { getJson } from "./api";
import { isFinal, type RunStatus } from "./event";
import { runPath, runsPath } from "./url";

export interface Variation {
  index: number;
  status: RunStatus;
  exit_code: number | null;
  /** Events that the producer has counted and the store does not have. */
  missing: number | null;
}

export interface Run {
  id: string;
  name: string;
  labels: Record<string, string>;
  status: RunStatus;
  variations: Variation[];
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  sealed: boolean;
  redacted?: boolean;
  events: number;
  bytes: number;
  last_id: string;
}

export interface RunPage {
  runs: Run[];
  next: string | null;
}

const PAGE_RUNS = 50;

export function listRuns(before: string | null): Promise<RunPage> {
  return getJson<RunPage>(runsPath(PAGE_RUNS, before));
}

export function getRun(id: string): Promise<Run> {
  return getJson<Run>(runPath(id));
}

/**
 * How long the run took, or has taken so far, in ms; null before its start or without a known end.
 */
export function runTime(run: Run, now: number): number | null {
  if (run.started_at === null) {
    return null;
  }
  const end = run.ended_at ?? (isFinal(run.status) ? null : now);
  return end === null ? null : new Date(end).getTime() - new Date(run.started_at).getTime();
}

export function missingEvents(run: Run): number {
  return run.variations.reduce((sum, variation) => sum + (variation.missing ?? 0), 0);
}

/** Whether a `state` frame says that the run was deleted. */
export function isDeletion(data: string): boolean {
  try {
    return (JSON.parse(data) as { status?: unknown } | null)?.status === "deleted";
  } catch {
    return false;
  }
}

/** Whether a `state` frame says that events of the run were redacted. */
export function isRedaction(data: string): boolean {
  try {
    return (JSON.parse(data) as { redacted?: unknown } | null)?.redacted === true;
  } catch {
    return false;
  }
}

/** The run with the update of a `state` frame; unchanged if the frame cannot be parsed. */
export function withUpdate(run: Run, data: string): Run {
  try {
    const update = JSON.parse(data) as { run?: unknown; status?: unknown; sealed?: unknown };
    if (update.run === run.id && typeof update.status === "string") {
      return { ...run, status: update.status as RunStatus, sealed: update.sealed === true };
    }
  } catch {
    // The next description has the same status.
  }
  return run;
}
