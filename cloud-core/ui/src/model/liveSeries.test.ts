import { describe, expect, it } from "vitest";
import type { LiveSeriesPart } from "../api/types";
import { freshness, fromSnapshot, LIVE_WINDOW_MS, mergePoints, panelsOf, trim } from "./liveSeries";

const part = (points: [number, number][], metric = "cpu_temp", device = "press-17"): LiveSeriesPart => ({
  fleet: "press-line",
  device,
  metric,
  points,
});

const only = (state: ReturnType<typeof fromSnapshot>) => {
  const [series] = [...state.values()];
  return series?.times_ms.map((at, i) => [at, series.values[i]]);
};

describe("merging what the stream sends", () => {
  it("appends, and sorts in what comes late", () => {
    const state = fromSnapshot([
      part([
        [1000, 1],
        [3000, 3],
      ]),
    ]);
    mergePoints(state, [
      part([
        [4000, 4],
        [2000, 2],
      ]),
    ]);
    expect(only(state)).toEqual([
      [1000, 1],
      [2000, 2],
      [3000, 3],
      [4000, 4],
    ]);
  });

  it("takes the later word on the same moment", () => {
    const state = fromSnapshot([
      part([
        [1000, 1],
        [2000, 2],
      ]),
    ]);
    mergePoints(state, [part([[1000, 9]])]);
    expect(only(state)).toEqual([
      [1000, 9],
      [2000, 2],
    ]);
  });

  it("gives any order of the same points the same result", () => {
    let seed = 7;
    const random = () => {
      seed = (seed * 48271) % 2147483647;
      return seed / 2147483647;
    };
    for (let round = 0; round < 50; round++) {
      const points = Array.from({ length: 30 }, (_, i): [number, number] => [i * 100, i]);
      const mixed = [...points].sort(() => random() - 0.5);
      const state = fromSnapshot([]);
      for (let i = 0; i < mixed.length; i += 7) mergePoints(state, [part(mixed.slice(i, i + 7))]);
      expect(only(state)).toEqual(points);
    }
  });

  it("forgets what left the window, and series without points", () => {
    const now = 10 * LIVE_WINDOW_MS;
    const state = fromSnapshot([
      part([
        [now - 2 * LIVE_WINDOW_MS, 1],
        [now - 1000, 2],
      ]),
      part([[now - 2 * LIVE_WINDOW_MS, 1]], "humidity"),
    ]);
    trim(state, now);
    expect(only(state)).toEqual([[now - 1000, 2]]);
    expect(state.size).toBe(1);
  });

  it("is bounded, however fast a series is", () => {
    const state = fromSnapshot([part(Array.from({ length: 10_000 }, (_, i): [number, number] => [i, i]))]);
    const [series] = [...state.values()];
    expect(series?.times_ms.length).toBeLessThan(7000);
    expect(series?.values.at(-1)).toBe(9999);
  });

  it("makes one panel for each metric", () => {
    const state = fromSnapshot([
      part([[1, 1]], "humidity", "press-10"),
      part([[1, 1]], "cpu_temp", "press-10"),
      part([[1, 1]], "cpu_temp", "press-9"),
    ]);
    expect(panelsOf(state).map((p) => [p.metric, p.series.map((s) => s.device)])).toEqual([
      ["cpu_temp", ["press-9", "press-10"]],
      ["humidity", ["press-10"]],
    ]);
  });
});

describe("freshness", () => {
  it("counts silence", () => {
    expect(freshness(300, 1000)).toEqual({ ms: 300, level: "good" });
    expect(freshness(300, 12_000)).toEqual({ ms: 12_300, level: "slow" });
    expect(freshness(300, 40_000).level).toBe("late");
    expect(freshness(null, 0)).toEqual({ ms: null, level: "unknown" });
  });
});
