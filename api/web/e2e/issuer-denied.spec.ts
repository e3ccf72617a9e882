// The same when the issuer refuses the user: the page shows the reason once, and still offers the
// other ways to sign in.
import { expect, test } from "@playwright/test";

test("the page shows once that the issuer has refused the sign-in", async ({ page, context }) => {
  await page.goto("/");
  await page.getByTestId("sign-in-issuer").click();
  await expect(page.getByTestId("sign-in-problem")).toContainText("refused the sign-in");
  await expect(page.getByTestId("sign-in-user")).toBeVisible();
  expect(await context.cookies()).toEqual([]);
  await page.reload();
  await expect(page.getByTestId("sign-in-issuer")).toBeVisible();
  await expect(page.getByTestId("sign-in-problem")).toHaveText("");
});
