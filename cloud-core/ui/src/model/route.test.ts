import { describe, expect, it } from "vitest";
import { duration_ms, formatRoute, historyOf, liveOf, parseRoute, type Route, switchView } from "./route";

const device = { kind: "device", fleet: "press-line", device: "press-17" } as const;

describe("routes", () => {
  const routes: Route[] = [
    { view: "overview", reason: null },
    { view: "overview", reason: "schema_violation" },
    liveOf(null),
    liveOf(device, "cpu_temp"),
    liveOf({ kind: "group", group: "hall 2/é & co" }),
    historyOf({ kind: "fleet", fleet: "press-line" }, "cpu_temp"),
    {
      view: "history",
      target: device,
      metric: "cpu_temp",
      range: { kind: "fixed", from_ms: Date.UTC(2026, 10, 27, 6), to_ms: Date.UTC(2026, 10, 27, 7, 30) },
      line: "avg",
      resolution: "1h",
    },
    { view: "groups", group: "hall-2", fleet: null },
  ];
  it.each(routes.map((route) => [formatRoute(route), route]))("%s comes back as it was", (hash, route) => {
    expect(parseRoute(hash)).toEqual(route);
  });

  it("reads links that people write", () => {
    expect(
      parseRoute("#/history?fleet=f&device=d&from=2026-11-27T06:00:00Z&to=2026-11-27T07:00:00Z"),
    ).toMatchObject({
      range: { kind: "fixed", from_ms: Date.UTC(2026, 10, 27, 6), to_ms: Date.UTC(2026, 10, 27, 7) },
      line: "p50",
      resolution: "auto",
    });
  });

  it("falls back where a link makes no sense", () => {
    expect(parseRoute("#/nowhere")).toEqual({ view: "overview", reason: null });
    expect(parseRoute("")).toEqual({ view: "overview", reason: null });
    expect(parseRoute("#/history?fleet=f&from=b&to=a&last=9y&resolution=2m")).toMatchObject({
      target: { kind: "fleet", fleet: "f" },
      range: { kind: "last", last: "6h" },
      resolution: "auto",
    });
  });

  it("keeps from before to", () => {
    const backwards = "#/history?fleet=f&from=2026-11-27T07:00:00Z&to=2026-11-27T06:00:00Z";
    expect(parseRoute(backwards)).toMatchObject({ range: { kind: "last" } });
  });

  it("keeps what is looked at when switching between live and history", () => {
    expect(switchView(liveOf(device, "cpu_temp"), "history")).toMatchObject({
      target: device,
      metric: "cpu_temp",
    });
    expect(switchView(historyOf(device, "cpu_temp"), "live")).toEqual(liveOf(device));
    expect(switchView({ view: "groups", group: "x", fleet: null }, "live")).toEqual(liveOf(null));
  });
});

it("reads durations", () => {
  expect(duration_ms("90m")).toBe(5_400_000);
  expect(duration_ms("30d")).toBe(30 * 86_400_000);
  for (const wrong of ["", "0h", "h", "-1h", "6", "6y", "1.5h"]) expect(duration_ms(wrong)).toBeNull();
});
