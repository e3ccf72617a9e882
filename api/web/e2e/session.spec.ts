// The story of a user: signs in by name and password, sees the name, is still signed in after a
// reload, and signs out.
//
// Expects a running gateway: RUNCAST_E2E_URL, RUNCAST_E2E_USER and RUNCAST_E2E_PASSWORD.
import { expect, test } from "@playwright/test";

declare const process: { env: { RUNCAST_E2E_USER?: string; RUNCAST_E2E_PASSWORD?: string } };

test("a user signs in and out", async ({ page, context }) => {
  const user = process.env.RUNCAST_E2E_USER ?? "";
  const enter = async (password: string) => {
    await page.getByTestId("sign-in-user").fill(user);
    await page.getByTestId("sign-in-password").fill(password);
    await page.getByTestId("sign-in-submit").click();
  };

  await page.goto("/");
  await enter("not the password");
  await expect(page.getByTestId("sign-in-problem")).toContainText("name or the password is wrong");
  await enter(process.env.RUNCAST_E2E_PASSWORD ?? "");
  await expect(page.locator("header .user-name")).toHaveText(user);

  const cookies = await context.cookies();
  expect(cookies.length).toBe(1);
  expect(cookies[0]).toMatchObject({ httpOnly: true, sameSite: "Lax" });

  await page.reload();
  await expect(page.locator("header .user-name")).toHaveText(user);
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByTestId("sign-in-user")).toBeVisible();
  expect(await context.cookies()).toEqual([]);
});
