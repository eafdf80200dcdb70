// What can't be updated at the moment, since when, and when it is tried again: the banner shows it.
import { Store } from "./store";

export interface Outage {
  what: string;
  message: string;
  since_ms: number;
  /** null: it is tried again all the time, or by itself. */
  retry_at_ms: number | null;
  /** The core asked for patience; nothing is broken. */
  limited: boolean;
  retry: (() => void) | null;
}

export const outages = new Store<ReadonlyMap<string, Outage>>(new Map());

export function reportOutage(key: string, outage: Omit<Outage, "since_ms">, now_ms = Date.now()): void {
  const next = new Map(outages.get());
  next.set(key, { ...outage, since_ms: next.get(key)?.since_ms ?? now_ms });
  outages.set(next);
}

export function clearOutage(key: string): void {
  if (!outages.get().has(key)) return;
  const next = new Map(outages.get());
  next.delete(key);
  outages.set(next);
}

/** The one to show: the oldest that is broken, else the oldest. */
export function worstOutage(all: ReadonlyMap<string, Outage>): Outage | null {
  const sorted = [...all.values()].sort(
    (a, b) => Number(a.limited) - Number(b.limited) || a.since_ms - b.since_ms,
  );
  return sorted[0] ?? null;
}
