// The story of a user of an OpenID Connect issuer: go there from a run's address, come back to it signed in.
//
// Driven by a gateway and an issuer that someone else has started: RUNCAST_E2E_URL. The issuer signs in without asking, at
// another host, so that the way back is one from another site. How it ends where the issuer refuses: issuer-denied.spec.ts.
import { expect, test } from "@playwright/test";

test("a user signs in by the issuer and comes back to what was asked for", async ({ page, context }) => {
  await page.goto("/#/runs/0190");
  const button = page.getByTestId("sign-in-issuer");
  await expect(button).toHaveText("Sign in with Example");
  await button.click();
  await expect(page.locator("header .who")).toHaveText("ada");
  expect(new URL(page.url()).hash).toBe("#/runs/0190");

  const cookies = await context.cookies();
  expect(cookies.length).toBe(1);
  expect(cookies[0]).toMatchObject({ name: "runcast_session", httpOnly: true, sameSite: "Lax" });

  await page.reload();
  await expect(page.locator("header .who")).toHaveText("ada");
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByTestId("sign-in-issuer")).toBeVisible();
  expect(await context.cookies()).toEqual([]);
});
