// Run with PENSTOCK_UI_OUTAGE=1 while the core's database is stopped by the caller.
import { expect, historyHash, liveHash, shot, signIn, test } from "./support";

// A session from before the outage, should the core be unable to make one now.
const cookie = process.env.PENSTOCK_UI_COOKIE;

test.beforeEach(async ({ page, context, baseURL, watch }) => {
  watch.tolerateFailures();
  if (!cookie) {
    await signIn(page);
    return;
  }
  await context.addCookies([
    { name: "penstock_session", value: cookie, url: baseURL ?? "", httpOnly: true, sameSite: "Strict" },
  ]);
  await page.goto("/");
});

test("the overview says what is missing and why, and shows the rest", async ({ page }) => {
  await expect(page.getByTestId("banner")).toBeVisible();
  await expect(page.getByTestId("banner")).toContainText("Can't update");
  await expect(page.getByTestId("banner")).toContainText("Since");
  await shot(page, "outage-overview", true);
});

test("the history says that it can't be loaded and tries again", async ({ page }) => {
  await page.goto(`/${historyHash("6h")}`);
  await expect(page.getByTestId("banner")).toBeVisible();
  await shot(page, "outage-history");
});

test("the live view still works", async ({ page }) => {
  await page.goto(`/${liveHash()}`);
  await expect(page.getByTestId("live-state")).toHaveAttribute("data-state", "live");
  const values = page.getByTestId("live-value");
  await expect(values.first()).toHaveText(/\d/);
  const before = (await values.allTextContents()).join();
  await expect
    .poll(async () => (await values.allTextContents()).join(), { timeout: 45_000 })
    .not.toBe(before);
  await shot(page, "outage-live");
});
