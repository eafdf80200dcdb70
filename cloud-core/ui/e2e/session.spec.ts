import { core, expect, liveHash, shot, signIn, test } from "./support";

test("the login explains itself and refuses a wrong token", async ({ page, watch }) => {
  watch.tolerateFailures();
  await page.goto("/");
  await expect(page.getByTestId("login")).toContainText("cloud-core tokens create --role viewer");
  await page.getByTestId("login-token").fill("not-a-token");
  await page.getByTestId("login-submit").click();
  await expect(page.getByTestId("login-error")).toContainText("does not know this token");
  await shot(page, "login");
});

test("a token becomes a session, and is kept nowhere that a script can read", async ({ page, context }) => {
  await signIn(page);
  await expect(page.getByTestId("overview")).toBeVisible();
  const readable = await page.evaluate(() =>
    JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]),
  );
  expect(readable).not.toContain(core.token);
  expect(page.url()).not.toContain(core.token);
  const cookie = (await context.cookies()).find((one) => one.name === "penstock_session");
  expect(cookie).toMatchObject({ httpOnly: true, sameSite: "Strict" });
  await page.reload();
  await expect(page.getByTestId("overview")).toBeVisible();
});

test("a session that ends in the middle leads to the login and back", async ({ page, context, watch }) => {
  watch.tolerateFailures();
  await signIn(page);
  await expect(page.getByTestId("overview")).toBeVisible();
  await context.clearCookies();
  await expect(page.getByTestId("login")).toContainText("Your session has ended");
  await shot(page, "session-ended");
  await page.getByTestId("login-token").fill(core.token);
  await page.getByTestId("login-submit").click();
  await expect(page.getByTestId("overview")).toBeVisible();
});

test("a deep link is still there after signing in", async ({ page }) => {
  await signIn(page, liveHash());
  await expect(page.getByTestId("target")).toHaveText(core.device);
  await page.getByTestId("sign-out").click();
  await expect(page.getByTestId("login")).toBeVisible();
  await page.getByTestId("login-token").fill(core.token);
  await page.getByTestId("login-submit").click();
  await expect(page.getByTestId("target")).toHaveText(core.device);
});
