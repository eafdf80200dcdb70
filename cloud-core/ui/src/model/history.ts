// A series as the chart draws it: pages put together, columns by statistic, marks.
import type { Gap, Resolution, SeriesPage, SeriesPoint } from "../api/types";
import { withBreaks } from "./gaps";
import { BUCKET_MS } from "./resolution";
import type { Line } from "./route";

export interface HistoryData {
  metric: string;
  resolution: Resolution;
  bucket_ms: number;
  from_ms: number;
  to_ms: number;
  points: HistoryPoint[];
  gaps: { from_ms: number; to_ms: number }[];
  quantile_error: number;
  /** There is more than the page wanted to fetch. */
  cut: boolean;
}

export interface HistoryPoint extends SeriesPoint {
  at_ms: number;
}

export function joinPages(pages: SeriesPage[]): HistoryData {
  const first = pages[0];
  if (!first) throw new Error("a series has at least one page");
  const byTime = new Map<number, HistoryPoint>();
  const gaps: Gap[] = [];
  for (const page of pages) {
    for (const point of page.points) {
      const at_ms = Date.parse(point.at);
      byTime.set(at_ms, { ...point, at_ms });
    }
    gaps.push(...page.gaps);
  }
  return {
    metric: first.metric,
    resolution: first.resolution,
    bucket_ms: BUCKET_MS[first.resolution],
    from_ms: Date.parse(first.from),
    to_ms: Date.parse(first.to),
    points: [...byTime.values()].sort((a, b) => a.at_ms - b.at_ms),
    gaps: mergeGaps(gaps),
    quantile_error: first.quantile_error,
    cut: pages.at(-1)?.next_cursor !== null,
  };
}

/** Gaps that touch, as at the seam of two pages, are one. */
export function mergeGaps(gaps: Gap[]): { from_ms: number; to_ms: number }[] {
  const sorted = gaps
    .map((gap) => ({ from_ms: Date.parse(gap.from), to_ms: Date.parse(gap.to) }))
    .sort((a, b) => a.from_ms - b.from_ms);
  const merged: { from_ms: number; to_ms: number }[] = [];
  for (const gap of sorted) {
    const last = merged.at(-1);
    if (last && gap.from_ms <= last.to_ms) last.to_ms = Math.max(last.to_ms, gap.to_ms);
    else merged.push({ ...gap });
  }
  return merged;
}

export interface HistoryColumns {
  times: number[];
  min: (number | null)[];
  max: (number | null)[];
  line: (number | null)[];
  p95: (number | null)[];
}

/** A point stands in the middle of its bucket; where a bucket is missing the line breaks. */
export function columnsOf(data: HistoryData, line: Line): HistoryColumns {
  const pick = (key: "min" | "max" | "p95" | Line) => data.points.map((point) => point[key] ?? null);
  const middle = data.points.map((point) => point.at_ms + data.bucket_ms / 2);
  const out = withBreaks(middle, [pick("min"), pick("max"), pick(line), pick("p95")], data.bucket_ms * 1.5);
  const [min = [], max = [], main = [], p95 = []] = out.columns;
  return { times: out.times, min, max, line: main, p95 };
}

export type Mark = "provisional" | "revised" | null;

/** Provisional wins: that it was written again is then no news. */
export function markOf(point: { revision: number; provisional: boolean }): Mark {
  if (point.provisional) return "provisional";
  return point.revision > 1 ? "revised" : null;
}

/** The bucket that a moment falls into. */
export function pointAt(data: HistoryData, at_ms: number): HistoryPoint | null {
  let low = 0;
  let high = data.points.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const point = data.points[middle] as HistoryPoint;
    if (at_ms < point.at_ms) high = middle - 1;
    else if (at_ms >= point.at_ms + data.bucket_ms) low = middle + 1;
    else return point;
  }
  return null;
}

/** In words, for the line above the chart and for screen readers. */
export function summary(
  data: HistoryData,
): { buckets: number; values: number; min: number; max: number } | null {
  if (data.points.length === 0) return null;
  let [values, min, max] = [0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const point of data.points) {
    values += point.count;
    min = Math.min(min, point.min);
    max = Math.max(max, point.max);
  }
  return { buckets: data.points.length, values, min, max };
}
