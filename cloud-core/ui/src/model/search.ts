// What typing finds: groups and fleets by name from the lists at hand, devices as the core found them.
import type { Device, Group } from "../api/types";
import { count } from "./format";
import type { Target } from "./route";

export interface Hit {
  target: Target;
  title: string;
  detail: string;
  last_seen: string | null;
}

const NAMED_MAX = 4;

/** Where the typed text stands in a name, for marking it; null when it does not. */
export function matchAt(name: string, text: string): [number, number] | null {
  const at = text === "" ? -1 : name.toLowerCase().indexOf(text.toLowerCase());
  return at < 0 ? null : [at, at + text.length];
}

/** A name that begins with the text before one that only contains it. */
function byMatch(text: string): (a: string, b: string) => number {
  const rank = (name: string) => matchAt(name, text)?.[0] ?? Number.POSITIVE_INFINITY;
  return (a, b) => Math.sign(rank(a) - rank(b)) || a.localeCompare(b, "en", { numeric: true });
}

export function hits(
  text: string,
  devices: readonly Device[],
  groups: readonly Group[],
  fleets: readonly string[],
): Hit[] {
  const order = byMatch(text);
  const found = <T>(all: readonly T[], name: (one: T) => string) =>
    all
      .filter((one) => matchAt(name(one), text))
      .sort((a, b) => order(name(a), name(b)))
      .slice(0, NAMED_MAX);
  return [
    ...found(groups, (g) => g.name).map(
      (g): Hit => ({
        target: { kind: "group", group: g.name },
        title: g.name,
        detail: `Group, ${count(g.devices)} ${g.devices === 1 ? "device" : "devices"}`,
        last_seen: null,
      }),
    ),
    ...found(fleets, (f) => f).map(
      (f): Hit => ({ target: { kind: "fleet", fleet: f }, title: f, detail: "Whole fleet", last_seen: null }),
    ),
    ...devices.map(
      (d): Hit => ({
        target: { kind: "device", fleet: d.fleet, device: d.device },
        title: d.device,
        detail: d.fleet,
        last_seen: d.last_seen,
      }),
    ),
  ];
}

/** Moves the choice in a list of `size`, around the ends. */
export function step(chosen: number, by: number, size: number): number {
  return size === 0 ? -1 : (chosen + by + size) % size;
}
