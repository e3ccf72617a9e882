// Colours and attributes: what each escape sets, resets, and leaves unchanged.

import { expect, test } from "vitest";
import { applySgr, BOLD, cssColor, DIM, INVERSE, ITALIC, styleAttributes, UNDERLINE } from "./ansi";

test("sets and resets each attribute", () => {
  const style = applySgr(null, "1;2;3;4;31");
  expect(style).toEqual({ fg: 1, bg: null, flags: BOLD | DIM | ITALIC | UNDERLINE });
  expect(applySgr(style, "22;23;24;39")).toBeNull();
  expect(applySgr(style, "4:0")?.flags).toBe(BOLD | DIM | ITALIC);
});

test.each(["", "0", "00", "0;0"])("%j resets", (params) => {
  expect(applySgr({ fg: 2, bg: 3, flags: BOLD }, params)).toBeNull();
});

test("parses bright, 256 and true colours, with semicolons and with colons", () => {
  expect(applySgr(null, "91;104")).toEqual({ fg: 9, bg: 12, flags: 0 });
  expect(applySgr(null, "38;5;208;1")).toEqual({ fg: 208, bg: null, flags: BOLD });
  const orange = { fg: 0x1ff8000, bg: null, flags: 0 };
  for (const params of ["38;2;255;128;0", "38:2::255:128:0", "38:2:255:128:0"]) {
    expect(applySgr(null, params)).toEqual(orange);
  }
  expect(applySgr(null, "48:5:17")).toEqual({ fg: null, bg: 17, flags: 0 });
});

test("unknown codes and values out of range change nothing", () => {
  const style = applySgr(null, "32");
  for (const params of ["58;5;1", "58;2;1;2;3", "99", "38;5;256", "38;2;1;2;999", "38"]) {
    expect(applySgr(style, params)).toEqual(style);
  }
});

test("the 16 named colours become CSS variables, all others fixed values", () => {
  expect(cssColor(3)).toBe("var(--a3)");
  expect(cssColor(16)).toBe("rgb(0, 0, 0)");
  expect(cssColor(208)).toBe("rgb(255, 135, 0)");
  expect(cssColor(255)).toBe("rgb(238, 238, 238)");
  expect(cssColor(0x100000a)).toBe("#00000a");
});

test("inverse swaps the colours, also the default ones", () => {
  expect(styleAttributes({ fg: 1, bg: null, flags: INVERSE | BOLD })).toEqual({
    class: "a-bold",
    color: "var(--sunken)",
    background: "var(--a1)",
  });
  expect(styleAttributes({ fg: null, bg: null, flags: ITALIC })).toEqual({ class: "a-italic" });
});
