import { describe, expect, it } from "vitest";
import { isolated, LIVE_GAP_MS, liveGap_ms, withBreaks } from "./gaps";

describe("breaks", () => {
  it("leaves neighbours joined and breaks where more is missing", () => {
    const out = withBreaks([0, 10_000, 40_001, 50_000], [[1, 2, 3, 4]], LIVE_GAP_MS);
    expect(out.columns).toEqual([[1, 2, null, 3, 4]]);
    expect(out.times[2]).toBeGreaterThan(10_000);
    expect(out.times[2]).toBeLessThan(40_001);
  });

  it("does not break at exactly the limit", () => {
    expect(withBreaks([0, LIVE_GAP_MS], [[1, 2]], LIVE_GAP_MS).columns).toEqual([[1, 2]]);
  });

  it("takes nothing for nothing", () => {
    expect(withBreaks([], [[]], 1)).toEqual({ times: [], columns: [[]] });
  });
});

it("calls a gap what is long for the series, and never more than 30 s none", () => {
  const every = (step: number) => Array.from({ length: 20 }, (_, i) => i * step);
  expect(
    [every(100), every(1000), every(3000), every(10_000), every(60_000), [1], []].map(liveGap_ms),
  ).toEqual([5000, 5000, 9000, 30_000, 30_000, 30_000, 30_000]);
});

describe("isolated points", () => {
  it("finds those that no line reaches", () => {
    expect(isolated([1, null, 2, 3, null, 4])).toEqual([0, 5]);
    expect(isolated([1])).toEqual([0]);
    expect(isolated([1, 2])).toEqual([]);
    expect(isolated([null, 5, null])).toEqual([1]);
  });

  it("looks past the moments of other lines", () => {
    expect(isolated([1, undefined, 2, undefined])).toEqual([]);
    expect(isolated([undefined, 1, undefined, null, undefined, 2, undefined])).toEqual([1, 5]);
  });
});
