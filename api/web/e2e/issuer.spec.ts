// The story of a user of an OpenID Connect issuer: goes there from the URL of a run, and comes back
// to the run signed in.
//
// Expects a running gateway (RUNCAST_E2E_URL) and a running issuer. The issuer signs in without a
// form, and on another host, so that the redirect back is cross-site. issuer-denied.spec.ts covers
// a refusal.
import { expect, test } from "@playwright/test";

test("a user signs in with the issuer and comes back to the requested run", async ({ page, context }) => {
  await page.goto("/#/runs/0190");
  const button = page.getByTestId("sign-in-issuer");
  await expect(button).toHaveText("Sign in with Example");
  await button.click();
  await expect(page.locator("header .user-name")).toHaveText("ada");
  expect(new URL(page.url()).hash).toBe("#/runs/0190");

  const cookies = await context.cookies();
  expect(cookies.length).toBe(1);
  expect(cookies[0]).toMatchObject({ name: "runcast_session", httpOnly: true, sameSite: "Lax" });

  await page.reload();
  await expect(page.locator("header .user-name")).toHaveText("ada");
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByTestId("sign-in-issuer")).toBeVisible();
  expect(await context.cookies()).toEqual([]);
});
