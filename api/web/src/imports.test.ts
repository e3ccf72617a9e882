// The layers of the page: no cycle of imports, and the core imports neither views nor Preact.
//
// Reads the import statements of all files under src, including type imports.

import { expect, test } from "vitest";

const sources = import.meta.glob<string>("./**/*.{ts,tsx}", {
  query: "?raw",
  import: "default",
  eager: true,
});

/** What each file imports: the paths of local files, and the names of packages. */
const imports = new Map(Object.entries(sources).map(([file, text]) => [file, importsOf(file, text)]));

function importsOf(file: string, text: string): string[] {
  const statements = text.matchAll(/^\s*(?:import|export)\s(?:[^;"]*?\sfrom\s)?"([^"]+)"|\bimport\("([^"]+)"\)/gm);
  return [...statements].map(([, from, dynamic]) => resolve(file, from ?? dynamic ?? ""));
}

/** The path of an imported file, relative to src like the keys of `sources`. */
function resolve(file: string, name: string): string {
  if (!name.startsWith(".")) {
    return name;
  }
  const path = `.${new URL(name, new URL(file, "file:///")).pathname}`;
  return [path, `${path}.ts`, `${path}.tsx`].find((candidate) => candidate in sources) ?? path;
}

/** The first cycle that is reachable from a file, as a list of files. */
function cycleFrom(file: string, trail: string[], acyclic: Set<string>): string[] {
  if (trail.includes(file)) {
    return [...trail.slice(trail.indexOf(file)), file];
  }
  for (const next of acyclic.has(file) ? [] : (imports.get(file) ?? [])) {
    const cycle = cycleFrom(next, [...trail, file], acyclic);
    if (cycle.length > 0) {
      return cycle;
    }
  }
  acyclic.add(file);
  return [];
}

test("no imports form a cycle", () => {
  // Guards the test itself: the imports of both kinds of files are found.
  expect(imports.get("./main.tsx")).toEqual(["preact", "./view/App.tsx"]);
  expect(imports.get("./core/log.ts")).toContain("./core/row.ts");
  const acyclic = new Set<string>();
  const cycles = [...imports.keys()].map((file) => cycleFrom(file, [], acyclic).join(" -> "));
  expect([...new Set(cycles)].filter((cycle) => cycle !== "")).toEqual([]);
});

test("the core imports neither views nor preact", () => {
  const core = [...imports].filter(([file]) => file.startsWith("./core/"));
  const forbidden = (name: string) => name.startsWith("./view/") || /^(@preact\/|preact(\/|$))/.test(name);
  expect(core.length).toBeGreaterThan(20);
  expect(core.flatMap(([file, names]) => names.filter(forbidden).map((name) => `${file}: ${name}`))).toEqual([]);
});
