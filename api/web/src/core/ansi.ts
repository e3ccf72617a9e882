// The colour escapes of a terminal (SGR, `ESC [ ... m`): how they change a style, and the style as
// CSS.
//
// A Style is immutable; all spans written with it share it. The 16 named colours are CSS variables,
// so that a theme can choose them; the other 240 and true colours become fixed values. `null` means
// no style.

export interface Style {
  /** 0 to 255: from the palette; TRUE_COLOR | rrggbb: a true colour; null: the default. */
  readonly fg: number | null;
  readonly bg: number | null;
  /** A sum of the flags below. */
  readonly flags: number;
}

export const BOLD = 1;
export const DIM = 2;
export const ITALIC = 4;
export const UNDERLINE = 8;
export const INVERSE = 16;
export const STRIKE = 32;

const TRUE_COLOR = 0x1000000;
const FLAG_ON: Record<number, number> = {
  1: BOLD,
  2: DIM,
  3: ITALIC,
  4: UNDERLINE,
  7: INVERSE,
  9: STRIKE,
  21: UNDERLINE,
};
const FLAG_OFF: Record<number, number> = { 22: BOLD | DIM, 23: ITALIC, 24: UNDERLINE, 27: INVERSE, 29: STRIKE };
const FLAG_CLASSES: [number, string][] = [
  [BOLD, "a-bold"],
  [DIM, "a-dim"],
  [ITALIC, "a-italic"],
  [UNDERLINE, "a-under"],
  [STRIKE, "a-strike"],
];

export function sameStyle(a: Style | null, b: Style | null): boolean {
  if (a === b) {
    return true;
  }
  return a !== null && b !== null && a.fg === b.fg && a.bg === b.bg && a.flags === b.flags;
}

/** The style after `ESC [ params m`. Unknown codes change nothing. */
export function applySgr(style: Style | null, params: string): Style | null {
  let fg = style?.fg ?? null;
  let bg = style?.bg ?? null;
  let flags = style?.flags ?? 0;
  const codes = params.split(";");
  for (let i = 0; i < codes.length; i += 1) {
    const parts = (codes[i] ?? "").split(":");
    const code = Number(parts[0] || 0);
    if (code === 0) {
      fg = null;
      bg = null;
      flags = 0;
    } else if (code === 4 && parts[1] === "0") {
      flags &= ~UNDERLINE;
    } else if (FLAG_ON[code] !== undefined) {
      flags |= FLAG_ON[code];
    } else if (FLAG_OFF[code] !== undefined) {
      flags &= ~FLAG_OFF[code];
    } else if (code === 38 || code === 48 || code === 58) {
      // `38:2::r:g:b` is one code; `38;2;r;g;b` uses the codes that follow. The page does not draw
      // 58, the colour of an underline, but must skip the codes that belong to it.
      const hasColons = parts.length > 1;
      const colorCodes = hasColons ? parts.slice(1) : codes.slice(i + 1, i + 5);
      const color = extendedColor(colorCodes, hasColons);
      if (!hasColons) {
        i += colorCodes[0] === "2" ? 4 : colorCodes[0] === "5" ? 2 : 0;
      }
      if (color !== null) {
        fg = code === 38 ? color : fg;
        bg = code === 48 ? color : bg;
      }
    } else if (code === 39) {
      fg = null;
    } else if (code === 49) {
      bg = null;
    } else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) {
      fg = code < 90 ? code - 30 : code - 90 + 8;
    } else if ((code >= 40 && code <= 47) || (code >= 100 && code <= 107)) {
      bg = code < 100 ? code - 40 : code - 100 + 8;
    }
  }
  return fg === null && bg === null && flags === 0 ? null : { fg, bg, flags };
}

function extendedColor(parts: string[], hasColons: boolean): number | null {
  if (parts[0] === "5") {
    return byte(parts[1]);
  }
  if (parts[0] !== "2") {
    return null;
  }
  // With colons, a colour space may precede the three numbers; it is usually empty.
  const [r, g, b] = (hasColons && parts.length > 4 ? parts.slice(2, 5) : parts.slice(1, 4)).map(byte);
  return r == null || g == null || b == null ? null : TRUE_COLOR | (r << 16) | (g << 8) | b;
}

function byte(text: string | undefined): number | null {
  const value = Number(text || 0);
  return Number.isInteger(value) && value >= 0 && value <= 255 ? value : null;
}

/** A style as CSS classes and colours. */
export function styleAttributes(style: Style): { class: string; color?: string; background?: string } {
  const classes = FLAG_CLASSES.filter(([flag]) => style.flags & flag).map(([, name]) => name);
  const inverse = (style.flags & INVERSE) !== 0;
  const fg = inverse ? style.bg : style.fg;
  const bg = inverse ? style.fg : style.bg;
  return {
    class: classes.join(" "),
    ...(fg !== null ? { color: cssColor(fg) } : inverse ? { color: "var(--sunken)" } : {}),
    ...(bg !== null ? { background: cssColor(bg) } : inverse ? { background: "var(--text)" } : {}),
  };
}

/** 16 named colours (variables of the style sheet), then a 6 x 6 x 6 colour cube, then 24 greys. */
export function cssColor(color: number): string {
  if (color >= TRUE_COLOR) {
    return `#${(color & 0xffffff).toString(16).padStart(6, "0")}`;
  }
  if (color < 16) {
    return `var(--a${color})`;
  }
  if (color >= 232) {
    const grey = 8 + (color - 232) * 10;
    return `rgb(${grey}, ${grey}, ${grey})`;
  }
  const cube = color - 16;
  const level = (step: number) => (step === 0 ? 0 : 55 + step * 40);
  return `rgb(${level(Math.floor(cube / 36))}, ${level(Math.floor(cube / 6) % 6)}, ${level(cube % 6)})`;
}
