// The address of what is seen, both ways. Everything that a deep link must restore is in the hash, nothing else.
import type { Resolution } from "../api/types";

export type Target =
  | { kind: "device"; fleet: string; device: string }
  | { kind: "group"; group: string }
  | { kind: "fleet"; fleet: string };

/** Either so far back from now, moving with it, or fixed. */
export type Range = { kind: "last"; last: string } | { kind: "fixed"; from_ms: number; to_ms: number };

export type Line = "p50" | "avg";

export type Route =
  | { view: "overview"; reason: string | null }
  | { view: "live"; target: Target | null; metric: string | null }
  | {
      view: "history";
      target: Target | null;
      metric: string | null;
      range: Range;
      line: Line;
      resolution: Resolution | "auto";
    }
  | { view: "groups"; group: string | null; fleet: string | null };

export type View = Route["view"];

export const DEFAULT_LAST = "6h";

const UNIT_MS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "6h" in milliseconds; null when it is no such text. */
export function duration_ms(text: string): number | null {
  const match = /^([1-9]\d{0,4})([mhd])$/.exec(text);
  return match ? Number(match[1]) * (UNIT_MS[match[2] as string] as number) : null;
}

export function targetParams(target: Target): Record<string, string> {
  if (target.kind === "device") return { fleet: target.fleet, device: target.device };
  return target.kind === "group" ? { group: target.group } : { fleet: target.fleet };
}

export function targetName(target: Target): string {
  if (target.kind === "device") return target.device;
  return target.kind === "group" ? target.group : target.fleet;
}

export function sameTarget(a: Target | null, b: Target | null): boolean {
  return JSON.stringify(a && targetParams(a)) === JSON.stringify(b && targetParams(b));
}

function parseTarget(query: URLSearchParams): Target | null {
  const [fleet, device, group] = [query.get("fleet"), query.get("device"), query.get("group")];
  if (group) return { kind: "group", group };
  if (fleet && device) return { kind: "device", fleet, device };
  return fleet ? { kind: "fleet", fleet } : null;
}

function parseTime(text: string | null): number {
  if (!text) return Number.NaN;
  return /^\d{12,}$/.test(text) ? Number(text) : Date.parse(text);
}

function parseRange(query: URLSearchParams): Range {
  const from_ms = parseTime(query.get("from"));
  const to_ms = parseTime(query.get("to"));
  if (from_ms < to_ms) return { kind: "fixed", from_ms, to_ms };
  const last = query.get("last") ?? "";
  return { kind: "last", last: duration_ms(last) === null ? DEFAULT_LAST : last };
}

function parseResolution(text: string | null): Resolution | "auto" {
  return text === "1m" || text === "1h" || text === "1d" ? text : "auto";
}

/** A hash that makes no sense is the overview: a mistyped link must show something. */
export function parseRoute(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#/, "").split("?", 2);
  const query = new URLSearchParams(search);
  switch (path.replace(/^\/+|\/+$/g, "")) {
    case "live":
      return { view: "live", target: parseTarget(query), metric: query.get("metric") || null };
    case "history":
      return {
        view: "history",
        target: parseTarget(query),
        metric: query.get("metric") || null,
        range: parseRange(query),
        line: query.get("stat") === "avg" ? "avg" : "p50",
        resolution: parseResolution(query.get("resolution")),
      };
    case "groups":
      return { view: "groups", group: query.get("group") || null, fleet: query.get("fleet") || null };
    default:
      return { view: "overview", reason: query.get("reason") || null };
  }
}

function isoSeconds(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

export function formatRoute(route: Route): string {
  const query = new URLSearchParams();
  const put = (key: string, value: string | null) => {
    if (value) query.set(key, value);
  };
  if ((route.view === "live" || route.view === "history") && route.target) {
    for (const [key, value] of Object.entries(targetParams(route.target))) put(key, value);
  }
  switch (route.view) {
    case "overview":
      put("reason", route.reason);
      break;
    case "live":
      put("metric", route.metric);
      break;
    case "groups":
      put("group", route.group);
      put("fleet", route.fleet);
      break;
    case "history":
      put("metric", route.metric);
      if (route.range.kind === "last") {
        put("last", route.range.last);
      } else {
        put("from", isoSeconds(route.range.from_ms));
        put("to", isoSeconds(route.range.to_ms));
      }
      if (route.line !== "p50") put("stat", route.line);
      if (route.resolution !== "auto") put("resolution", route.resolution);
      break;
  }
  // Colons are legal in a fragment, and a link that people read should be readable.
  const text = query.toString().replaceAll("%3A", ":");
  return text ? `#/${route.view}?${text}` : `#/${route.view}`;
}

export const overviewRoute: Route = { view: "overview", reason: null };

export function liveOf(target: Target | null, metric: string | null = null): Route {
  return { view: "live", target, metric };
}

export function historyOf(target: Target | null, metric: string | null = null): Route {
  const range: Range = { kind: "last", last: DEFAULT_LAST };
  return { view: "history", target, metric, range, line: "p50", resolution: "auto" };
}

/** What the tabs lead to: live and history keep what is being looked at. */
export function switchView(route: Route, view: View): Route {
  if (route.view === view && view !== "groups") return route;
  const held = route.view === "live" || route.view === "history";
  const target = held ? route.target : null;
  const metric = held ? route.metric : null;
  switch (view) {
    case "overview":
      return overviewRoute;
    case "live":
      return liveOf(target, null);
    case "history":
      return historyOf(target, metric);
    case "groups":
      return { view: "groups", group: null, fleet: null };
  }
}
