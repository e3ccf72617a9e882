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
export const WAYS_PATH = `${SESSION_PATH}/ways`;

/** Where the browser goes to sign in by the issuer; afterwards it comes back to `returnTo`. */
export function issuerPath(client: string | null, returnTo: string): string {
  const query = new URLSearchParams({ return_to: returnTo });
  if (client !== null) {
    query.set("client", client);
  }
  return `${SESSION_PATH}/oidc?${query}`;
}

/** Why signing in by the issuer failed: the word that the gateway sent the browser back with. */
export function signInFailure(hash: string): string | null {
  return new URLSearchParams(hash.split("?")[1] ?? "").get("sign-in");
}

export function runsPath(limit: number, before: string | null): string {
  return `/v1/runs?limit=${limit}${before === null ? "" : `&before=${encodeURIComponent(before)}`}`;
}

export function runPath(id: string): string {
  return `/v1/runs/${encodeURIComponent(id)}`;
}

/** The live stream from just after an event; `0-0` is the beginning. */
export function streamPath(id: string, after: string): string {
  return `${runPath(id)}/stream?${channels(CHANNELS)}&after=${encodeURIComponent(after)}`;
}

/** Where a page of events is: before or behind one, from a line by its number, or from a moment. */
export type Place = { before: string } | { after: string } | { line: number } | { at: number };

/** A page of events, of one variation or of all. */
export function eventsPath(id: string, variation: number | null, place: Place, limit: number): string {
  const kinds = variation === null ? CHANNELS : ["output", "log", "status"].map((kind) => `${kind}:${variation}`);
  const [[name, value] = ["", ""]] = Object.entries(place);
  return `${runPath(id)}/events?${channels(kinds)}&limit=${limit}&${name}=${encodeURIComponent(value)}`;
}

/** All that a run printed, as text, without escape sequences. */
export function textPath(id: string): string {
  return `${runPath(id)}/text?ansi=strip`;
}

export interface SearchFor {
  text: string;
  regex: boolean;
  ignoreCase: boolean;
}

/** A search backward from an event, or from the end. */
export function searchPath(id: string, search: SearchFor, before: string, limit: number): string {
  const what = `${search.regex ? "regex" : "q"}=${encodeURIComponent(search.text)}`;
  return `${runPath(id)}/search?${what}&ignore_case=${search.ignoreCase}&before=${encodeURIComponent(before)}&limit=${limit}`;
}

function channels(names: readonly string[]): string {
  return names.map((name) => `channel=${name}`).join("&");
}

/** Enough of an id to tell it from its neighbours: the start of a UUIDv7 is a time, its end is random. */
export function shortId(id: string): string {
  return id.slice(-8);
}
