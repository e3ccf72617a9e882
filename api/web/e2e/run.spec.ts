// The story of a reader: signs in, opens a run that prints "tick 1", "tick 2", ..., sees it grow,
// reloads, and misses nothing.
//
// Expects a running gateway: RUNCAST_E2E_URL, RUNCAST_E2E_TOKEN, RUNCAST_E2E_RUN (the id of a run
// whose command prints a tick about every 200 ms on stdout), and optionally RUNCAST_E2E_SHOT (where
// to save a screenshot).
import { expect, type Locator, type Page, test } from "@playwright/test";

interface StoryEnv {
  RUNCAST_E2E_TOKEN?: string;
  RUNCAST_E2E_RUN?: string;
  RUNCAST_E2E_SHOT?: string;
}

declare const process: { env: StoryEnv };

test("a reader follows a run and finds every line again after a reload", async ({ page }) => {
  const token = given("RUNCAST_E2E_TOKEN");
  const run = given("RUNCAST_E2E_RUN");
  const violations = policyViolations(page);

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

  // While the list follows its end, the last visible row is the newest tick.
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
 * The numbers of all tick lines, including those that are not visible. Only visible rows are
 * elements, so this scrolls from the top to the end and notes each row by its number. The list
 * follows its end afterwards.
 */
async function allTicks(list: Locator): Promise<number[]> {
  const rows = await list.evaluate(async (box) => {
    const seen = new Map<number, string>();
    const rendered = () => new Promise((done) => setTimeout(done, 60));
    for (let top = 0; ; top += Math.floor(box.clientHeight / 2)) {
      box.scrollTop = top;
      await rendered();
      for (const row of box.querySelectorAll<HTMLElement>('[data-testid="log-row"]')) {
        seen.set(Number(row.dataset.number), row.textContent ?? "");
      }
      if (top + box.clientHeight >= box.scrollHeight) {
        break;
      }
    }
    box.scrollTop = box.scrollHeight;
    await rendered();
    return [...seen];
  });
  return rows
    .sort(([a], [b]) => a - b)
    .map(([, text]) => /^tick (\d+)$/.exec(text)?.[1])
    .filter((tick) => tick !== undefined)
    .map(Number);
}

/** Collects the content security policy violations that the browser reports. */
function policyViolations(page: Page): string[] {
  const violations: string[] = [];
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) {
      violations.push(message.text());
    }
  });
  return violations;
}
