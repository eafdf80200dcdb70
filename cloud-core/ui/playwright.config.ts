import { defineConfig } from "@playwright/test";

// The specs run against a real core, whose address and token come from the environment (README.md). With
// PENSTOCK_UI_OUTAGE=1 only the one for outages runs: the caller has stopped the core's database by then.
const outage = process.env.PENSTOCK_UI_OUTAGE === "1";

export default defineConfig({
  testDir: "e2e",
  testMatch: outage ? "outage.spec.ts" : "*.spec.ts",
  testIgnore: outage ? [] : ["outage.spec.ts"],
  timeout: 90_000,
  expect: { timeout: 20_000 },
  workers: 1,
  reporter: "list",
  use: {
    baseURL: process.env.PENSTOCK_UI_URL ?? "http://127.0.0.1:8090",
    viewport: { width: 1280, height: 800 },
    launchOptions: {
      executablePath: process.env.PENSTOCK_UI_BROWSER ?? "/usr/bin/chromium",
      args: [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    },
  },
});
