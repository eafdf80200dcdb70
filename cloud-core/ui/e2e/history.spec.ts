import { core, expect, historyHash, shot, signIn, test } from "./support";

test("zooming out takes coarser buckets, and back restores the zoom before", async ({ page }) => {
  await signIn(page, historyHash("6h"));
  const chart = page.getByTestId("history-chart");
  const resolution = page.getByTestId("resolution");
  await expect(chart).toBeVisible();
  await expect(resolution).toHaveAttribute("data-resolution", "1m");
  await shot(page, "history-6h");
  await page.getByTestId("preset-30d").click();
  await expect(resolution).toHaveAttribute("data-resolution", "1h");
  await shot(page, "history-30d");
  await page.goBack();
  await expect(resolution).toHaveAttribute("data-resolution", "1m");
  await expect(page).toHaveURL(/last=6h/);
});

test("dragging and keys zoom, and the address says what is seen", async ({ page }) => {
  await signIn(page, historyHash("1d"));
  const chart = page.getByTestId("history-chart");
  await expect(page.getByTestId("resolution")).toHaveAttribute("data-resolution", "1m");
  const over = chart.locator(".u-over");
  const box = await over.boundingBox();
  if (!box) throw new Error("the chart has no box");
  await page.mouse.move(box.x + box.width * 0.4, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.6, box.y + box.height / 2, { steps: 8 });
  await page.mouse.up();
  await expect(page).toHaveURL(/from=.*to=/);
  const width_ms = async () =>
    Date.parse((await chart.getAttribute("data-to")) ?? "") -
    Date.parse((await chart.getAttribute("data-from")) ?? "");
  await expect.poll(width_ms).toBeLessThan(6 * 3_600_000);
  const dragged_ms = await width_ms();
  await page.keyboard.press("+");
  await expect.poll(width_ms).toBeLessThan(dragged_ms * 0.6);
  await page.keyboard.press("ArrowLeft");
  const link = page.url();
  const seen = await chart.getAttribute("data-from");
  await page.goto("/#/overview");
  await page.goto(link);
  await expect(chart).toHaveAttribute("data-from", seen ?? "");
  await shot(page, "history-zoomed");
});

test("the wheel zooms at the pointer", async ({ page }) => {
  await signIn(page, historyHash("1d"));
  const over = page.getByTestId("history-chart").locator(".u-over");
  await over.hover();
  await page.mouse.wheel(0, -400);
  await expect(page).toHaveURL(/from=.*to=/);
});

test("a group has a history too", async ({ page }) => {
  await signIn(page, `#/history?${new URLSearchParams({ group: core.group, last: "1h" })}`);
  await expect(page.getByTestId("history-chart")).toBeVisible();
  await expect
    .poll(async () => Number(await page.getByTestId("points").getAttribute("data-points")))
    .toBeGreaterThan(0);
  await page
    .getByTestId("history-chart")
    .locator(".u-over")
    .hover({ position: { x: 5, y: 50 } });
  await shot(page, "history-group");
});

test("the CSV holds the same buckets", async ({ page }) => {
  await signIn(page, historyHash("1h"));
  const points = page.getByTestId("points");
  await expect.poll(async () => Number(await points.getAttribute("data-points"))).toBeGreaterThan(0);
  const download = page.waitForEvent("download");
  await page.getByTestId("csv").click();
  const stream = await (await download).createReadStream();
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  expect(text.split("\n")[0]).toMatch(/^at,/);
  expect(text.trim().split("\n").length).toBeGreaterThan(1);
});
