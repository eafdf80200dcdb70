// Missing data is shown as missing: a line breaks where nothing was measured.

/** A device sends every 10 s; past three of those the next point is no neighbour any more. */
export const LIVE_GAP_MS = 30_000;

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
    for (let c = 0; c < columns.length; c++) (out.columns[c] as (number | null)[]).push(columns[c]?.[i] ?? null);
  }
  return out;
}

/** Points without a neighbour on either side: no line shows them, they need a dot. */
export function isolated(values: readonly (number | null | undefined)[]): number[] {
  const found: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (values[i] == null) continue;
    if (values[i - 1] == null && values[i + 1] == null) found.push(i);
  }
  return found;
}
