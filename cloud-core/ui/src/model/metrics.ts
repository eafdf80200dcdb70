import type { Metric } from "../api/types";

/** What was sent before what could be, deprecated last, by name. */
export function orderMetrics(known: readonly Metric[], sent: readonly string[]): Metric[] {
  const names = new Set(known.map((one) => one.name));
  const unknown = sent
    .filter((name) => !names.has(name))
    .map((name): Metric => ({ name, description: "", deprecated: false, since_schema: 0 }));
  const rank = (one: Metric) => (sent.includes(one.name) ? 0 : 2) + (one.deprecated ? 1 : 0);
  return [...known, ...unknown].sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
}
