import { describe, expect, it } from "vitest";
import type { SeriesPage, SeriesPoint } from "../api/types";
import { columnsOf, joinPages, markOf, mergeGaps, pointAt, summary } from "./history";
import { asked, autoResolution, drawable } from "./resolution";

const at = (minute: number) => new Date(Date.UTC(2026, 10, 27, 6, minute)).toISOString();
const point = (minute: number, more: Partial<SeriesPoint> = {}): SeriesPoint => ({
  at: at(minute),
  count: 6,
  avg: 2,
  min: 1,
  max: 4,
  p50: 2.1,
  p95: 3.9,
  sum: 12,
  revision: 1,
  provisional: false,
  ...more,
});
const page = (points: SeriesPoint[], more: Partial<SeriesPage> = {}): SeriesPage => ({
  fleet: "press-line",
  device: "press-17",
  group: null,
  metric: "cpu_temp",
  resolution: "1m",
  from: at(0),
  to: at(30),
  points,
  gaps: [],
  quantile_error: 0.01,
  next_cursor: null,
  ...more,
});

describe("pages", () => {
  it("become one series, each bucket once", () => {
    const data = joinPages([
      page([point(0), point(1)], { next_cursor: "x" }),
      page([point(1, { avg: 5 }), point(2)]),
    ]);
    expect(data.points.map((p) => [p.at, p.avg])).toEqual([
      [at(0), 2],
      [at(1), 5],
      [at(2), 2],
    ]);
    expect(data.cut).toBe(false);
  });

  it("say when there is more", () => {
    expect(joinPages([page([point(0)], { next_cursor: "x" })]).cut).toBe(true);
  });

  it("join the gaps at their seam", () => {
    const gaps = mergeGaps([
      { from: at(5), to: at(6) },
      { from: at(1), to: at(3) },
      { from: at(3), to: at(4) },
    ]);
    expect(gaps.map((gap) => gap.to_ms - gap.from_ms)).toEqual([3 * 60_000, 60_000]);
  });
});

describe("columns", () => {
  it("break where a bucket is missing", () => {
    const columns = columnsOf(joinPages([page([point(0), point(1), point(3)])]), "avg");
    expect(columns.line).toEqual([2, 2, null, 2]);
    expect(columns.max).toEqual([4, 4, null, 4]);
    expect(columns.times[0]).toBe(Date.parse(at(0)) + 30_000);
  });

  it("draw the line that is asked for", () => {
    expect(columnsOf(joinPages([page([point(0)])]), "p50").line).toEqual([2.1]);
  });
});

it("finds the bucket of a moment", () => {
  const data = joinPages([page([point(0), point(1), point(3)])]);
  expect(pointAt(data, Date.parse(at(1)))?.at).toBe(at(1));
  expect(pointAt(data, Date.parse(at(1)) + 59_999)?.at).toBe(at(1));
  expect(pointAt(data, Date.parse(at(2)))).toBeNull();
  expect(pointAt(data, Date.parse(at(4)))).toBeNull();
});

it("marks what may change and what has changed", () => {
  expect(markOf(point(0))).toBeNull();
  expect(markOf(point(0, { revision: 2 }))).toBe("revised");
  expect(markOf(point(0, { revision: 3, provisional: true }))).toBe("provisional");
});

it("sums up", () => {
  expect(summary(joinPages([page([point(0), point(1, { max: 9 })])]))).toEqual({
    buckets: 2,
    values: 12,
    min: 1,
    max: 9,
  });
  expect(summary(joinPages([page([])]))).toBeNull();
});

describe("resolution", () => {
  const HOUR = 3_600_000;
  it("is the finest with at most 1,500 points", () => {
    expect(autoResolution(25 * HOUR)).toBe("1m");
    expect(autoResolution(25 * HOUR + 1)).toBe("1h");
    expect(autoResolution(1500 * HOUR)).toBe("1h");
    expect(autoResolution(1501 * HOUR)).toBe("1d");
  });

  it("is offered only where it can be drawn", () => {
    expect(drawable("1m", 7 * 24 * HOUR)).toBe(false);
    expect(drawable("1h", 30 * 24 * HOUR)).toBe(true);
  });

  it("asks for whole buckets", () => {
    const noon = Date.UTC(2026, 10, 27, 12);
    expect(asked({ from_ms: noon + 30_500, to_ms: noon + HOUR + 500 }, "auto")).toEqual({
      from_ms: noon,
      to_ms: noon + HOUR + 60_000,
    });
    const week = asked({ from_ms: noon + 1, to_ms: noon + 7 * 24 * HOUR + 1 }, "auto");
    expect([week.from_ms % HOUR, week.to_ms % HOUR]).toEqual([0, 0]);
    expect(week.from_ms).toBe(noon);
  });
});
