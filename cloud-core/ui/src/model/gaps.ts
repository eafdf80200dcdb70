// Missing data is shown as missing: a line breaks where nothing was measured.

/** A device sends every 10 s; past three of those the next point is no neighbour any more. */
export const LIVE_GAP_MS = 30_000;
const LIVE_GAP_MIN_MS = 5000;

/** How far apart two points may be and still be neighbours: three of the series' usual steps, at most 30 s. */
export function liveGap_ms(times_ms: readonly number[]): number {
  const steps = times_ms.slice(1).map((at_ms, i) => at_ms - (times_ms[i] as number));
  const usual = steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)];
  return usual === undefined ? LIVE_GAP_MS : Math.min(LIVE_GAP_MS, Math.max(LIVE_GAP_MIN_MS, usual * 3));
}

/** Times and values with a null between points that are further apart than `gap_max_ms`. */
export function withBreaks(
  times: readonly number[],
  columns: readonly (readonly (number | null)[])[],
  gap_max_ms: number,
): { times: number[]; columns: (number | null)[][] } {
  const out = { times: [] as number[], columns: columns.map(() => [] as (number | null)[]) };
  for (let i = 0; i < times.length; i++) {
    const at = times[i] as number;
    const before = times[i - 1];
    if (before !== undefined && at - before > gap_max_ms) {
      out.times.push(before + (at - before) / 2);
      for (const column of out.columns) column.push(null);
    }
    out.times.push(at);
    for (let c = 0; c < columns.length; c++)
      (out.columns[c] as (number | null)[]).push(columns[c]?.[i] ?? null);
  }
  return out;
}

/**
 * Points without a neighbour on either side: no line shows them, they need a dot. null is a break; undefined only
 * means that another line has a point at that moment, and this one goes on.
 */
export function isolated(values: readonly (number | null | undefined)[]): number[] {
  const found: number[] = [];
  let before: number | null = null;
  let alone: number | null = null;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value === undefined) continue;
    if (alone !== null && value === null) found.push(alone);
    alone = value !== null && before === null ? i : null;
    before = value;
  }
  if (alone !== null) found.push(alone);
  return found;
}
