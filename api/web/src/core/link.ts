// Every address the page uses: its own (after `#`) and the ones of the gateway. Only this file spells one.

import { CHANNELS } from "./event";

export type Route = { page: "runs"; before: string | null } | { page: "run"; id: string };

/** Reads `location.hash`. What it does not know is the list of runs. */
export function parseHash(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?");
  const run = /^\/runs\/([^/]+)\/?$/.exec(path);
  if (run?.[1] !== undefined) {
    return { page: "run", id: decode(run[1]) };
  }
  return { page: "runs", before: new URLSearchParams(query).get("before") };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function runsHash(before?: string | null): string {
  return before == null ? "#/" : `#/?before=${encodeURIComponent(before)}`;
}

export function runHash(id: string): string {
  return `#/runs/${encodeURIComponent(id)}`;
}

export const SESSION_PATH = "/v1/session";

export function runsPath(limit: number, before: string | null): string {
  return `/v1/runs?limit=${limit}${before === null ? "" : `&before=${encodeURIComponent(before)}`}`;
}

export function runPath(id: string): string {
  return `/v1/runs/${encodeURIComponent(id)}`;
}

/** The live stream from just after an event; `0-0` is the beginning. */
export function streamPath(id: string, after: string): string {
  const channels = CHANNELS.map((name) => `channel=${name}`).join("&");
  return `${runPath(id)}/stream?${channels}&after=${encodeURIComponent(after)}`;
}

/** The stored events of one variation, for what the page no longer holds. */
export function historyPath(id: string, variation: number): string {
  return `${runPath(id)}/events?channel=output:${variation}&channel=log:${variation}`;
}

/** Enough of an id to tell it from its neighbours: the start of a UUIDv7 is a time, its end is random. */
export function shortId(id: string): string {
  return id.slice(-8);
}
