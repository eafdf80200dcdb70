import { describe, expect, it } from "vitest";
import type { Metric } from "../api/types";
import { orderMetrics } from "./metrics";
import { hits, matchAt, step } from "./search";

describe("what typing finds", () => {
  const device = { fleet: "press-line", device: "press-17", metrics: [], last_seen: null };
  it("puts groups and fleets before devices", () => {
    const found = hits(
      "press",
      [device],
      [
        { name: "all-presses", devices: 80 },
        { name: "hall-1", devices: 1 },
      ],
      ["press-line"],
    );
    expect(found.map((hit) => [hit.target.kind, hit.title])).toEqual([
      ["group", "all-presses"],
      ["fleet", "press-line"],
      ["device", "press-17"],
    ]);
  });

  it("puts names that begin with the text first", () => {
    const groups = ["x-hall", "hall-10", "hall-9"].map((name) => ({ name, devices: 2 }));
    expect(hits("HALL", [], groups, []).map((hit) => hit.title)).toEqual(["hall-9", "hall-10", "x-hall"]);
  });

  it("marks the match in any case", () => {
    expect(matchAt("Press-17", "press")).toEqual([0, 5]);
    expect(matchAt("Press-17", "")).toBeNull();
  });

  it("steps around the ends", () => {
    expect([step(2, 1, 3), step(0, -1, 3), step(0, 1, 0)]).toEqual([0, 2, -1]);
  });
});

it("orders metrics: sent first, deprecated last, older before newer", () => {
  const metric = (name: string, deprecated = false, since_schema = 1): Metric => ({
    name,
    description: "",
    deprecated,
    since_schema,
  });
  const known = [metric("0", false, 3), metric("a"), metric("b", true), metric("c"), metric("d", true)];
  const names = (sent: string[]) => orderMetrics(known, sent).map((one) => one.name);
  expect(names(["c", "b", "new"])).toEqual(["c", "new", "b", "a", "0", "d"]);
  expect(names([])).toEqual(["a", "c", "0", "b", "d"]);
});
