// Formats times and numbers: ages and durations for the list of runs, clock times for log lines.

const UNITS: [string, number][] = [
  ["d", 86_400],
  ["h", 3600],
  ["m", 60],
  ["s", 1],
];

/** Two units at most: `41s`, `3m 07s`, `2h 15m`, `5d 3h`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const at = UNITS.findIndex(([, size]) => seconds >= size);
  const unit = UNITS[at];
  if (unit === undefined) {
    return "0s";
  }
  const [name, size] = unit;
  const lower = UNITS[at + 1];
  if (lower === undefined) {
    return `${seconds}${name}`;
  }
  const rest = String(Math.floor((seconds % size) / lower[1]));
  return `${Math.floor(seconds / size)}${name} ${lower[0] === "h" ? rest : rest.padStart(2, "0")}${lower[0]}`;
}

/** One unit: `now`, `12s ago`, `3h ago`. */
export function age(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const unit = UNITS.find(([, size]) => seconds >= size);
  return unit === undefined ? "now" : `${Math.floor(seconds / unit[1])}${unit[0]} ago`;
}

/**
 * `14:03:07.250` in the reader's time zone. Without Intl, which is too slow to run for each row.
 */
export function clock(time: number): string {
  const date = new Date(time);
  const two = (value: number) => String(value).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

export function amount(value: number): string {
  return value.toLocaleString("en");
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let rest = value;
  while (rest >= 1024 && at < units.length - 1) {
    rest /= 1024;
    at += 1;
  }
  return `${at === 0 || rest >= 100 ? Math.round(rest) : rest.toFixed(1)} ${units[at]}`;
}
