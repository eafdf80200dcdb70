import { core, expect, expectNoSidewaysScroll, historyHash, liveHash, shot, signIn, test } from "./support";

test.describe("on a phone", () => {
  test.use({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });

  test("nothing is wider than the screen", async ({ page }) => {
    await page.goto("/");
    await expect(page.getByTestId("login")).toBeVisible();
    await expectNoSidewaysScroll(page);
    await signIn(page);
    await expect(page.getByTestId("overview-gateways")).toBeVisible();
    await expectNoSidewaysScroll(page);
    await shot(page, "phone-overview", true);
    await page.goto(`/${liveHash()}`);
    await expect(page.getByTestId("live-chart").first()).toBeVisible();
    await expectNoSidewaysScroll(page);
    await shot(page, "phone-live");
    await page.goto(`/${historyHash("6h")}`);
    await expect(page.getByTestId("resolution")).toBeVisible();
    await expectNoSidewaysScroll(page);
    await shot(page, "phone-history");
    await page.goto("/#/groups");
    await expect(page.getByTestId("group-row").first()).toBeVisible();
    await expectNoSidewaysScroll(page);
    await page.getByTestId("search").fill(core.device);
    await expect(page.getByTestId("search-result").first()).toBeVisible();
    await expectNoSidewaysScroll(page);
    await shot(page, "phone-search");
  });
});

const brightness = () => {
  const [r = 0, g = 0, b = 0] =
    getComputedStyle(document.documentElement).backgroundColor.match(/\d+/g)?.map(Number) ?? [];
  return (r + g + b) / 3;
};

test.describe("in the dark", () => {
  test.use({ colorScheme: "dark" });

  test("it is dark by itself, and light by choice", async ({ page }) => {
    await signIn(page);
    await expect(page.getByTestId("overview-gateways")).toBeVisible();
    expect(await page.evaluate(brightness)).toBeLessThan(60);
    await shot(page, "dark-overview", true);
    await page.goto(`/${liveHash()}`);
    await expect(page.getByTestId("live-chart").first()).toBeVisible();
    await shot(page, "dark-live");
    await page.goto(`/${historyHash("6h")}`);
    await expect(page.getByTestId("resolution")).toBeVisible();
    await shot(page, "dark-history");
    await page.getByTestId("theme").click();
    expect(await page.evaluate(brightness)).toBeGreaterThan(200);
    await page.reload();
    await expect(page.getByTestId("resolution")).toBeVisible();
    expect(await page.evaluate(brightness)).toBeGreaterThan(200);
  });
});
