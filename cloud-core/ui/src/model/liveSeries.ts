// The last five minutes as the page holds them: what snapshots and points of /v1/live make of it.
import type { LiveSeriesPart } from "../api/types";

export const LIVE_WINDOW_MS = 5 * 60_000;
// Kept a little longer, so that the line reaches the left edge.
const MARGIN_MS = 30_000;
// 5.5 minutes at 20 points a second; a faster series loses its oldest points, not the page its memory.
const POINTS_MAX = 6600;

export interface LiveSeries {
  fleet: string;
  device: string;
  metric: string;
  times_ms: number[];
  values: number[];
}

export type LiveState = ReadonlyMap<string, LiveSeries>;

export const keyOf = (part: { fleet: string; device: string; metric: string }): string =>
  `${part.metric}\u0000${part.fleet}\u0000${part.device}`;

/** A snapshot replaces everything. */
export function fromSnapshot(parts: LiveSeriesPart[]): Map<string, LiveSeries> {
  const state = new Map<string, LiveSeries>();
  mergePoints(state, parts);
  return state;
}

/** Adds points in place, in the order of time whatever order they come in; the later word on a moment counts. */
export function mergePoints(state: Map<string, LiveSeries>, parts: LiveSeriesPart[]): void {
  for (const part of parts) {
    const key = keyOf(part);
    let series = state.get(key);
    if (!series) {
      series = { fleet: part.fleet, device: part.device, metric: part.metric, times_ms: [], values: [] };
      state.set(key, series);
    }
    for (const [at_ms, value] of part.points) insert(series, at_ms, value);
  }
}

function insert(series: LiveSeries, at_ms: number, value: number): void {
  const { times_ms, values } = series;
  let i = times_ms.length;
  while (i > 0 && (times_ms[i - 1] as number) > at_ms) i--;
  if (i > 0 && times_ms[i - 1] === at_ms) {
    values[i - 1] = value;
    return;
  }
  times_ms.splice(i, 0, at_ms);
  values.splice(i, 0, value);
  if (times_ms.length > POINTS_MAX) {
    times_ms.shift();
    values.shift();
  }
}

/** Forgets what has left the window; series without any point left go too. */
export function trim(state: Map<string, LiveSeries>, now_ms: number): void {
  const oldest_ms = now_ms - LIVE_WINDOW_MS - MARGIN_MS;
  for (const [key, series] of state) {
    const keep = series.times_ms.findIndex((at_ms) => at_ms >= oldest_ms);
    if (keep < 0) state.delete(key);
    else if (keep > 0) {
      series.times_ms.splice(0, keep);
      series.values.splice(0, keep);
    }
  }
}

export interface MetricPanel {
  metric: string;
  series: LiveSeries[];
}

/** One panel for each metric, by name; a panel has one line, or one for each device. */
export function panelsOf(state: LiveState): MetricPanel[] {
  const panels = new Map<string, MetricPanel>();
  for (const series of state.values()) {
    const panel = panels.get(series.metric) ?? { metric: series.metric, series: [] };
    panel.series.push(series);
    panels.set(series.metric, panel);
  }
  for (const panel of panels.values())
    panel.series.sort((a, b) => a.device.localeCompare(b.device, "en", { numeric: true }));
  return [...panels.values()].sort((a, b) => a.metric.localeCompare(b.metric));
}

export type FreshnessLevel = "good" | "slow" | "late" | "unknown";

/** How old the picture is: what the server said, and how long it has said nothing since. */
export function freshness(
  freshness_ms: number | null,
  silent_ms: number,
  ping_ms = 6000,
): { ms: number | null; level: FreshnessLevel } {
  if (freshness_ms === null) return { ms: null, level: "unknown" };
  const ms = freshness_ms + (silent_ms > ping_ms ? silent_ms : 0);
  // 30 s is what the pipeline promises.
  return { ms, level: ms < 5000 ? "good" : ms < 30_000 ? "slow" : "late" };
}
