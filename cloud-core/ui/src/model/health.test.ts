import { describe, expect, it } from "vitest";
import type { Gateway, OverviewLedger } from "../api/types";
import { freshnessLevel, gatewayHealth, ledgerVerdict, problemOf, worstFirst } from "./health";

const ledger = (more: Partial<OverviewLedger> = {}): OverviewLedger => ({
  received: 123,
  stored: 120,
  duplicates: 1,
  dead_lettered: 2,
  in_flight: 0,
  not_kept: 0,
  missing: 0,
  damaged: 0,
  verdict: "complete",
  ...more,
});

const gateway = (name: string, more: Partial<Gateway> = {}): Gateway => ({
  gateway: name,
  status_at: "2026-11-27T06:00:00Z",
  status_age_s: 4,
  spool_pending: 0,
  spool_bytes: 0,
  spool_bytes_max: 1000,
  oldest_age_s: null,
  silent: false,
  ...more,
});

describe("the ledger in words", () => {
  it("is calm when all is accounted for", () => {
    expect(ledgerVerdict(ledger())).toMatchObject({ level: "good", title: "Complete" });
    expect(ledgerVerdict(ledger({ verdict: "in_flight", in_flight: 7 })).text).toContain(
      "7 events are on their way",
    );
  });

  it("is red and exact when something is missing", () => {
    const verdict = ledgerVerdict(ledger({ verdict: "missing", missing: 3, damaged: 1 }));
    expect(verdict).toMatchObject({ level: "bad", title: "4 missing" });
    expect(verdict.text).toContain("1 of them is damaged");
  });
});

describe("gateways", () => {
  it("come worst first", () => {
    const sorted = worstFirst([
      gateway("b"),
      gateway("full", { spool_bytes: 900 }),
      gateway("a10"),
      gateway("a9"),
      gateway("behind", { oldest_age_s: 90 }),
      gateway("silent", { silent: true }),
    ]);
    expect(sorted.map((g) => g.gateway)).toEqual(["full", "silent", "behind", "a9", "a10", "b"]);
  });

  it("say what to look at", () => {
    expect(gatewayHealth(gateway("x", { silent: true, status_age_s: 600 })).text).toContain("10 min");
    expect(gatewayHealth(gateway("x")).level).toBe("good");
    expect(gatewayHealth(gateway("x", { spool_bytes_max: null, spool_bytes: null })).level).toBe("good");
  });
});

it("holds freshness against the promise of 30 s", () => {
  expect([840, 12_000, 31_000, null].map(freshnessLevel)).toEqual(["good", "warn", "bad", "none"]);
});

describe("problems", () => {
  it("are found whatever their shape", () => {
    expect(problemOf({ ledger: "no database" }, "ledger")).toBe("no database");
    expect(problemOf([{ part: "ledger", why: "no database" }], "ledger")).toBe("no database");
    expect(problemOf(["ledger: no database"], "ledger")).toBe("no database");
    expect(problemOf(["the database is away"], "ledger")).toBe("the database is away");
    expect(problemOf(undefined, "ledger")).toBeNull();
  });
});
