import { core, expect, liveHash, shot, signIn, test } from "./support";

test("a device's values change without a reload", async ({ page }) => {
  await signIn(page, liveHash());
  await page.evaluate(() => {
    (window as unknown as { same: boolean }).same = true;
  });
  await expect(page.getByTestId("live-state")).toHaveAttribute("data-state", "live");
  await expect(page.getByTestId("live-chart").first()).toBeVisible();
  await expect(page.getByTestId("freshness")).toHaveAttribute("data-ms", /^\d+$/);
  const values = page.getByTestId("live-value");
  const before = (await values.allTextContents()).join();
  await expect
    .poll(async () => (await values.allTextContents()).join(), { timeout: 45_000 })
    .not.toBe(before);
  expect(await page.evaluate(() => (window as unknown as { same: boolean }).same)).toBe(true);
  const behind_ms = Number(await page.getByTestId("freshness").getAttribute("data-ms"));
  expect(behind_ms).toBeLessThan(30_000);
  await shot(page, "live-device");
});

test("it can be stopped and goes on", async ({ page }) => {
  await signIn(page, liveHash());
  await expect(page.getByTestId("live-state")).toHaveAttribute("data-state", "live");
  await page.getByTestId("live-toggle").click();
  await expect(page.getByTestId("live-state")).toHaveAttribute("data-state", "stopped");
  await page.getByTestId("live-toggle").click();
  await expect(page.getByTestId("live-state")).toHaveAttribute("data-state", "live");
});

test("a lost connection is said, and heals by itself", async ({ page, context, watch }) => {
  watch.tolerateFailures();
  await signIn(page, liveHash());
  const state = page.getByTestId("live-state");
  await expect(state).toHaveAttribute("data-state", "live");
  // Being offline leaves open streams alone, so it is made to connect anew.
  await context.setOffline(true);
  await page.getByTestId("live-toggle").click();
  await page.getByTestId("live-toggle").click();
  await expect(state).toHaveAttribute("data-state", "reconnecting", { timeout: 40_000 });
  await expect(page.getByTestId("banner")).toContainText("Can't update the live values");
  await expect(page.getByTestId("live-chart").first()).toBeVisible();
  await shot(page, "live-offline");
  await context.setOffline(false);
  await expect(state).toHaveAttribute("data-state", "live", { timeout: 40_000 });
  await expect(page.getByTestId("banner")).toBeHidden();
});

test("a group is found in the list and seen live", async ({ page }) => {
  await signIn(page, "#/groups");
  const row = page
    .getByTestId("group-row")
    .filter({ has: page.getByRole("link", { name: core.group, exact: true }) });
  await row.getByRole("link", { name: core.group, exact: true }).click();
  await expect(page.getByTestId("member").first()).toBeVisible();
  await shot(page, "group-members");
  await page.getByTestId("open-live").click();
  await expect(page.getByTestId("target")).toHaveText(core.group);
  await expect(page.getByTestId("live-state")).toHaveAttribute("data-state", "live");
  await expect(page.getByTestId("live-value").first()).toHaveText(/\d/);
  await shot(page, "live-group");
});

test("a whole fleet is seen live", async ({ page }) => {
  await signIn(page, `#/live?${new URLSearchParams({ fleet: core.fleet })}`);
  await expect(page.getByTestId("live-value").first()).toHaveText(/\d/);
  await shot(page, "live-fleet");
});
