// The same where the issuer refuses: the page says so, once, and the other ways to sign in are there.
import { expect, test } from "@playwright/test";

test("whom the issuer refuses is told so by the page", async ({ page, context }) => {
  await page.goto("/");
  await page.getByTestId("sign-in-issuer").click();
  await expect(page.getByTestId("sign-in-problem")).toContainText("not let in");
  await expect(page.getByTestId("sign-in-user")).toBeVisible();
  expect(await context.cookies()).toEqual([]);
  await page.reload();
  await expect(page.getByTestId("sign-in-issuer")).toBeVisible();
  await expect(page.getByTestId("sign-in-problem")).toHaveText("");
});
