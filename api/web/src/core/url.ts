// Every URL that the page uses: its own (after `#`) and those of the gateway. Only this file spells
// one.

import { EVENT_KINDS } from "./event";

export type Route = { page: "runs"; before: string | null } | { page: "run"; id: string };

/** Reads `location.hash`. An unknown hash leads to the list of runs. */
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

/**
 * Reads `#/sign-in/<code>` and the hash that it leads to: a run if its path follows, else the list.
 */
export function parseSignInHash(hash: string): { code: string; target: string } | null {
  const link = /^#?\/sign-in\/([^/?]+)(.*)$/.exec(hash);
  if (link?.[1] === undefined) {
    return null;
  }
  const route = parseHash(link[2] ?? "");
  return { code: decode(link[1]), target: route.page === "run" ? runHash(route.id) : runsHash() };
}

export const SESSION_PATH = "/v1/session";
export const SIGN_IN_METHODS_PATH = `${SESSION_PATH}/ways`;

/** Starts the sign-in by OpenID Connect; the browser comes back to `returnTo` afterwards. */
export function issuerPath(client: string | null, returnTo: string): string {
  const query = new URLSearchParams({ return_to: returnTo });
  if (client !== null) {
    query.set("client", client);
  }
  return `${SESSION_PATH}/oidc?${query}`;
}

/** The reason why a sign-in by OpenID Connect failed, which the gateway puts into the hash. */
export function signInFailure(hash: string): string | null {
  return new URLSearchParams(hash.split("?")[1] ?? "").get("sign-in");
}

export function runsPath(limit: number, before: string | null): string {
  return `/v1/runs?limit=${limit}${before === null ? "" : `&before=${encodeURIComponent(before)}`}`;
}

export function runPath(id: string): string {
  return `/v1/runs/${encodeURIComponent(id)}`;
}

/** The live stream after an event; `0-0` is the beginning. */
export function streamPath(id: string, after: string): string {
  return `${runPath(id)}/stream?${channels(EVENT_KINDS)}&after=${encodeURIComponent(after)}`;
}

/**
 * The position of a page of events: before or after an event, or from a line number or a time on.
 */
export type PagePosition = { before: string } | { after: string } | { line: number } | { at: number };

/** A page of events of one variation, or of all if `variation` is null. */
export function eventsPath(id: string, variation: number | null, position: PagePosition, limit: number): string {
  const names = variation === null ? EVENT_KINDS : ["output", "log", "status"].map((kind) => `${kind}:${variation}`);
  const [[name, value] = ["", ""]] = Object.entries(position);
  return `${runPath(id)}/events?${channels(names)}&limit=${limit}&${name}=${encodeURIComponent(value)}`;
}

/** The whole output of a run as text, without escape sequences. */
export function textPath(id: string): string {
  return `${runPath(id)}/text?ansi=strip`;
}

export interface SearchQuery {
  text: string;
  regex: boolean;
  ignoreCase: boolean;
}

/** A search backward from an event, or from `end`. */
export function searchPath(id: string, query: SearchQuery, before: string, limit: number): string {
  const pattern = `${query.regex ? "regex" : "q"}=${encodeURIComponent(query.text)}`;
  return `${runPath(id)}/search?${pattern}&ignore_case=${query.ignoreCase}&before=${encodeURIComponent(before)}&limit=${limit}`;
}

function channels(names: readonly string[]): string {
  return names.map((name) => `channel=${name}`).join("&");
}

/**
 * The part of an id that tells runs apart: a UUIDv7 starts with a time and ends with random digits.
 */
export function shortId(id: string): string {
  return id.slice(-8);
}
