// The story of a one-time sign-in link: it signs in, leads to a run, and leaves no code in the
// address; a second use shows the sign-in form with the reason.
//
// Expects a running gateway: RUNCAST_E2E_URL, RUNCAST_E2E_CODE (a code that was not used yet) and
// RUNCAST_E2E_RUN (the id of a run).
import { expect, test } from "@playwright/test";

declare const process: { env: { RUNCAST_E2E_CODE?: string; RUNCAST_E2E_RUN?: string } };

test("a sign-in link works once, and its code leaves the address", async ({ page, context }) => {
  const code = process.env.RUNCAST_E2E_CODE ?? "";
  const run = process.env.RUNCAST_E2E_RUN ?? "";
  const link = `/#/sign-in/${code}/runs/${run}`;
  expect(code, "RUNCAST_E2E_CODE is set").not.toBe("");

  await page.goto(link);
  await expect(page.locator("header .user-name")).toBeVisible();
  await expect(page).toHaveURL(new RegExp(`#/runs/${run}$`));
  await page.reload();
  await expect(page.locator("header .user-name")).toBeVisible();

  // With a session, the link just leads to the run.
  await page.goto("/");
  await page.goto(link);
  await expect(page).toHaveURL(new RegExp(`#/runs/${run}$`));
  await expect(page.locator("header .user-name")).toBeVisible();

  // Without one, a used link is refused.
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByTestId("sign-in-user")).toBeVisible();
  await page.goto("/");
  await page.goto(link);
  await expect(page.getByTestId("sign-in-problem")).toHaveText(
    "This sign-in link has expired or was already used. Sign in with a token or a password.",
  );
  expect(new URL(page.url()).hash).toBe(`#/runs/${run}`);
  expect(await context.cookies()).toEqual([]);
});
