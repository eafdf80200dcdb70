import type { Metric } from "../api/types";

/**
 * What was sent before what could be, deprecated last; then what the oldest devices send already,
 * which of a group or fleet most devices have; by name.
 */
export function orderMetrics(known: readonly Metric[], sent: readonly string[]): Metric[] {
  const names = new Set(known.map((one) => one.name));
  const unknown = sent
    .filter((name) => !names.has(name))
    .map((name): Metric => ({ name, description: "", deprecated: false, since_schema: 0 }));
  const rank = (one: Metric) => (sent.includes(one.name) ? 0 : 2) + (one.deprecated ? 1 : 0);
  // No schema knows those with 0.
  const since = (one: Metric) => one.since_schema || Number.MAX_SAFE_INTEGER;
  return [...known, ...unknown].sort(
    (a, b) => rank(a) - rank(b) || since(a) - since(b) || a.name.localeCompare(b.name),
  );
}
