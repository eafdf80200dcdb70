// What all specs share: the core they talk to, signing in, and the watch over what the page must never do.
import { test as base, expect, type Page } from "@playwright/test";

function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: the specs need a running core, see README.md`);
  return value;
}

export const core = {
  get token() {
    return setting("PENSTOCK_UI_TOKEN");
  },
  get fleet() {
    return setting("PENSTOCK_UI_FLEET");
  },
  get device() {
    return setting("PENSTOCK_UI_DEVICE");
  },
  get group() {
    return setting("PENSTOCK_UI_GROUP");
  },
};

const screenshots = process.env.PENSTOCK_UI_SCREENSHOTS ?? "test-results/screenshots";

export async function shot(page: Page, name: string, fullPage = false): Promise<void> {
  await page.screenshot({ path: `${screenshots}/${name}.png`, fullPage });
}

export async function signIn(page: Page, hash = "#/overview"): Promise<void> {
  await page.goto(`/${hash}`);
  await page.getByTestId("login-token").fill(core.token);
  await page.getByTestId("login-submit").click();
  await expect(page.getByTestId("tab-overview")).toBeVisible();
}

export const liveHash = () => `#/live?${new URLSearchParams({ fleet: core.fleet, device: core.device })}`;

export const historyHash = (last: string) =>
  `#/history?${new URLSearchParams({ fleet: core.fleet, device: core.device, last })}`;

export async function expectNoSidewaysScroll(page: Page): Promise<void> {
  await expect
    .poll(() =>
      page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
    )
    .toBeLessThanOrEqual(0);
}

interface Watch {
  /** Failed requests are no fault of the page, as while a store is away. */
  tolerateFailures: () => void;
}

/** Every test of every file: nothing leaves the origin, no console error, nothing that the CSP refused. */
export const test = base.extend<{ watch: Watch }>({
  watch: [
    async ({ page, baseURL }, use) => {
      const faults: string[] = [];
      let tolerant = false;
      const origin = new URL(baseURL ?? "").origin;
      page.on("request", (request) => {
        const url = new URL(request.url());
        const local = url.protocol === "data:" || url.protocol === "blob:";
        if (!local && url.origin !== origin) faults.push(`a request to ${url.origin}`);
      });
      page.on("pageerror", (error) => faults.push(`an exception: ${error.message}`));
      page.on("console", (message) => {
        if (message.type() !== "error") return;
        const failed = message.text().startsWith("Failed to load resource");
        // Whether somebody is signed in can only be asked: the browser notes the 401 as an error.
        const asked =
          failed && message.text().includes("401") && message.location().url.endsWith("/v1/session");
        if (!asked && !(failed && tolerant))
          faults.push(`in the console: ${message.text()} (${message.location().url})`);
      });
      await page.addInitScript(() => {
        document.addEventListener("securitypolicyviolation", (event) =>
          console.error(`CSP: ${event.violatedDirective} refused ${event.blockedURI}`),
        );
      });
      await use({
        tolerateFailures: () => {
          tolerant = true;
        },
      });
      expect(faults).toEqual([]);
    },
    { auto: true },
  ],
});

export { expect };
