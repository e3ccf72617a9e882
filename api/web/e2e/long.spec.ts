// The story of a long run: its page opens on the last lines at once and loads older lines when the
// reader scrolls up. Search and line numbers lead to any other position, and a button back to the
// end.
//
// Expects a running gateway: RUNCAST_E2E_URL, RUNCAST_E2E_TOKEN, RUNCAST_E2E_RUN (the id of a run
// whose event N says "line N"), RUNCAST_E2E_LINES (how many), and optionally RUNCAST_E2E_SHOT
// (where to save screenshots).
import { expect, type Locator, type Page, test } from "@playwright/test";

interface StoryEnv {
  RUNCAST_E2E_TOKEN?: string;
  RUNCAST_E2E_RUN?: string;
  RUNCAST_E2E_LINES?: string;
  RUNCAST_E2E_SHOT?: string;
}

declare const process: { env: StoryEnv };

test("a reader opens a long run at its end and finds any position in it", async ({ page }) => {
  const run = given("RUNCAST_E2E_RUN");
  const lines = Number(given("RUNCAST_E2E_LINES"));
  await page.goto("/");
  await page.getByTestId("sign-in-other").click();
  await page.getByTestId("sign-in-token").fill(given("RUNCAST_E2E_TOKEN"));
  await page.getByTestId("sign-in-submit").click();
  await expect(page.getByTestId("run-list")).toBeVisible();

  const list = page.getByTestId("variation-0").getByTestId("log-list");
  const opened = Date.now();
  await page.goto(`/#/runs/${run}`);
  await expect(line(list, lines)).toBeVisible();
  console.log(`first lines of ${lines} after ${Date.now() - opened} ms`);
  await expect(page.getByTestId("connection-state")).toHaveAttribute("data-state", "live", { timeout: 15_000 });
  await expect(list).toHaveAttribute("data-following", "true");
  await shot(page, "end");

  // Scroll up, again and again: rows that are prepended do not move the visible text.
  for (const below of [lines - 1500, lines - 2500, lines - 3500]) {
    await expect
      .poll(
        async () => {
          await scrollUp(list);
          return (await numbers(list))[0];
        },
        { timeout: 30_000, intervals: [50] },
      )
      .toBeLessThan(below);
  }
  const seen = await numbers(list);
  expect(seen, "rows in order, without a gap").toEqual(seen.map((_, at) => (seen[0] ?? 0) + at));
  await expect(page.getByTestId("jump-to-end")).toBeVisible();
  await shot(page, "older");

  // Search finds a line that was not loaded before.
  const target = Math.floor(lines / 3) + 4;
  await page.getByTestId("search-text").fill(`LINE ${target}`);
  await page.getByTestId("search-text").press("Enter");
  const hit = page.getByTestId("search-hit").filter({ hasText: new RegExp(`line ${target}$`) });
  await expect(hit).toBeVisible({ timeout: 30_000 });
  await shot(page, "search");
  await hit.click();
  await expect(line(list, target)).toBeInViewport();
  await expect(list.locator(".hit")).toHaveText(`line ${target}`);
  await page.getByRole("button", { name: "Close" }).click();
  await shot(page, "hit");
  // The lines around it are there, in order, and more lines below when the reader scrolls on.
  await list.evaluate((box) => box.scrollBy(0, box.clientHeight));
  const around = await numbers(list);
  expect(around).toEqual(around.map((_, at) => (around[0] ?? 0) + at));

  await page.getByTestId("go-to").fill("12345");
  await page.getByTestId("go-to").press("Enter");
  await expect(line(list, 12345)).toBeInViewport();
  await shot(page, "line");

  await page.getByTestId("jump-to-end").click();
  await expect(line(list, lines)).toBeInViewport();
  await expect(list).toHaveAttribute("data-following", "true");

  const download = page.waitForEvent("download");
  await page.getByTestId("download-text").click();
  expect((await download).suggestedFilename()).toBe(`${run}.txt`);
});

/**
 * Scrolls up by six screens, and checks that the top row stays in place while older rows arrive.
 */
async function scrollUp(list: Locator): Promise<void> {
  const moved = await list.evaluate(async (box) => {
    const rendered = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)));
    box.scrollTop = Math.max(0, box.scrollTop - box.clientHeight * 6);
    const top = box.getBoundingClientRect().top;
    const rows = () => [...box.querySelectorAll<HTMLElement>('[data-testid="log-row"]')];
    let first: HTMLElement | undefined;
    for (let round = 0; round < 100 && first === undefined; round++) {
      await rendered();
      first = rows().find((row) => row.getBoundingClientRect().top >= top + 40);
    }
    const text = first?.textContent;
    const at = first?.getBoundingClientRect().top ?? 0;
    await new Promise((done) => setTimeout(done, 150));
    // Older rows may arrive at this moment: the position counts after they are rendered.
    let moved = Number.NaN;
    for (let round = 0; round < 20 && !(moved < 3); round++) {
      await rendered();
      const again = rows().find((row) => row.textContent === text);
      moved = again === undefined ? Number.NaN : Math.abs(again.getBoundingClientRect().top - at);
    }
    return moved;
  });
  expect(moved, "pixels that the text under the reader's eyes has moved").toBeLessThan(3);
}

function line(list: Locator, number: number): Locator {
  return list.getByText(`line ${number}`, { exact: true });
}

/** The numbers of the rendered lines. */
async function numbers(list: Locator): Promise<number[]> {
  const texts = await list.getByTestId("log-row").allTextContents();
  return texts.map((text) => Number(/^line (\d+)$/.exec(text)?.[1]));
}

async function shot(page: Page, name: string): Promise<void> {
  if (process.env.RUNCAST_E2E_SHOT) {
    await page.screenshot({ path: `${process.env.RUNCAST_E2E_SHOT}-${name}.png` });
  }
}

function given(name: keyof StoryEnv): string {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set`);
  }
  return value;
}
