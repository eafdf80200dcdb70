import { expect, shot, signIn, test } from "./support";

test("the overview shows every part and moves by itself", async ({ page }) => {
  await signIn(page);
  await expect(page.getByTestId("overview-ingest")).toContainText("events/s");
  await expect(page.getByTestId("overview-ledger")).toContainText(/Complete|In flight|missing/);
  for (const part of ["freshness", "stored", "duplicates", "dead-letters", "gateways"]) {
    await expect(page.getByTestId(`overview-${part}`)).toBeVisible();
  }
  await expect(page.getByTestId("overview-stored")).toContainText(/To store\s*\d/);
  await expect(page.getByTestId("overview-stored")).toContainText(/To roll up\s*\d/);
  const at = page.getByTestId("overview-at");
  const before = await at.textContent();
  await expect(at).not.toHaveText(before ?? "");
  await shot(page, "overview", true);
});

test("the keyboard reaches every view, and ? explains", async ({ page }) => {
  await signIn(page);
  await expect(page.getByTestId("overview")).toBeVisible();
  for (const [key, view] of [
    ["4", "groups"],
    ["2", "live"],
    ["3", "history"],
    ["1", "overview"],
  ] as const) {
    await page.keyboard.press(key);
    await expect(page.getByTestId(`tab-${view}`)).toHaveAttribute("aria-current", "page");
  }
  await page.keyboard.press("?");
  await expect(page.getByTestId("help-dialog")).toBeVisible();
  await shot(page, "help");
  await page.keyboard.press("Escape");
  await expect(page.getByTestId("help-dialog")).toBeHidden();
});
