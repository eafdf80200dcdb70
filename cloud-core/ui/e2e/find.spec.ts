import { core, expect, shot, signIn, test } from "./support";

test("a device is found by typing, with the keyboard alone", async ({ page }) => {
  await signIn(page);
  await expect(page.getByTestId("overview")).toBeVisible();
  await page.keyboard.press("/");
  const search = page.getByTestId("search");
  await expect(search).toBeFocused();
  await search.pressSequentially(core.device.slice(0, -1), { delay: 20 });
  await expect(page.getByTestId("search-result").first()).toBeVisible();
  await shot(page, "search");
  await search.pressSequentially(core.device.slice(-1));
  const exact = page
    .getByTestId("search-result")
    .filter({ has: page.locator(".hit-name").getByText(core.device, { exact: true }) })
    .filter({ hasText: core.fleet });
  await expect(exact.first()).toBeVisible();
  // The exact name may stand below groups that contain it.
  const all = await page.getByTestId("search-result").count();
  for (let i = 0; i < all && (await exact.first().getAttribute("aria-selected")) !== "true"; i++) {
    await page.keyboard.press("ArrowDown");
  }
  await expect(exact.first()).toHaveAttribute("aria-selected", "true");
  await page.keyboard.press("Enter");
  await expect(page.getByTestId("target")).toHaveText(core.device);
  await expect(page).toHaveURL(/#\/live\?/);
});

test("nothing found says so", async ({ page }) => {
  await signIn(page);
  await page.getByTestId("search").fill("no-such-thing-anywhere");
  await expect(page.getByText("Nothing is called")).toBeVisible();
});

test("a group is found by typing", async ({ page }) => {
  await signIn(page);
  await page.getByTestId("search").fill(core.group);
  await expect(page.getByTestId("search-result").filter({ hasText: "Group" }).first()).toBeVisible();
});
