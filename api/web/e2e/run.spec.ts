// The story of a reader: sign in, open a run that prints "tick 1", "tick 2", ..., see it grow, reload, miss nothing.
//
// Driven by a gateway that someone else has started: RUNCAST_E2E_URL, RUNCAST_E2E_TOKEN, RUNCAST_E2E_RUN (the id of a run
// whose command prints a tick about every 200 ms on stdout), and RUNCAST_E2E_SHOT (where to leave a picture, if given).
import { expect, type Locator, type Page, test } from "@playwright/test";

interface StoryEnv {
  RUNCAST_E2E_TOKEN?: string;
  RUNCAST_E2E_RUN?: string;
  RUNCAST_E2E_SHOT?: string;
}

declare const process: { env: StoryEnv };

test("a reader follows a run and finds all of it again", async ({ page }) => {
  const token = given("RUNCAST_E2E_TOKEN");
  const run = given("RUNCAST_E2E_RUN");
  const violations = refusedByPolicy(page);

  await page.goto("/");
  await page.getByTestId("sign-in-other").click();
  await page.getByTestId("sign-in-token").fill(token);
  await page.getByTestId("sign-in-submit").click();

  const row = page.getByTestId("run-list").locator(`[data-testid="run-row"][data-run="${run}"]`);
  await row.getByRole("link").click();
  await expect(page).toHaveURL(new RegExp(`#/runs/${run}$`));

  const state = page.getByTestId("connection-state");
  const list = page.getByTestId("variation-0").getByTestId("log-list");
  await expect(state).toHaveAttribute("data-state", "live", { timeout: 15_000 });
  const before = await allTicks(list);
  expect(before[0], "the first tick").toBe(1);

  // Following the end, the last row on screen is the newest tick.
  const newest = before.length + 5;
  await expect(list.getByText(`tick ${newest}`, { exact: true })).toBeVisible({ timeout: 15_000 });
  await expect(state).toHaveAttribute("data-state", "live");
  if (process.env.RUNCAST_E2E_SHOT) {
    await page.screenshot({ path: process.env.RUNCAST_E2E_SHOT });
  }

  await page.reload();
  await expect(state).toHaveAttribute("data-state", "live", { timeout: 15_000 });
  await expect(list.getByText(`tick ${newest}`, { exact: true })).toBeVisible();
  const after = await allTicks(list);
  expect(after.length).toBeGreaterThanOrEqual(newest);
  expect(after, "every tick once, in order").toEqual(after.map((_, at) => at + 1));
  expect(violations, "refused by the content security policy").toEqual([]);
});

function given(name: keyof StoryEnv): string {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set`);
  }
  return value;
}

/**
 * The numbers of all tick lines, also of those that are not on screen: only rows in sight are elements, so this scrolls from
 * the top to the end and notes each row by its number. Leaves the list following its end.
 */
async function allTicks(list: Locator): Promise<number[]> {
  const rows = await list.evaluate(async (box) => {
    const seen = new Map<number, string>();
    const drawn = () => new Promise((done) => setTimeout(done, 60));
    for (let top = 0; ; top += Math.floor(box.clientHeight / 2)) {
      box.scrollTop = top;
      await drawn();
      for (const row of box.querySelectorAll<HTMLElement>('[data-testid="log-row"]')) {
        seen.set(Number(row.dataset.number), row.textContent ?? "");
      }
      if (top + box.clientHeight >= box.scrollHeight) {
        break;
      }
    }
    box.scrollTop = box.scrollHeight;
    await drawn();
    return [...seen];
  });
  return rows
    .sort(([a], [b]) => a - b)
    .map(([, text]) => /^tick (\d+)$/.exec(text)?.[1])
    .filter((tick) => tick !== undefined)
    .map(Number);
}

function refusedByPolicy(page: Page): string[] {
  const refused: string[] = [];
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) {
      refused.push(message.text());
    }
  });
  return refused;
}
