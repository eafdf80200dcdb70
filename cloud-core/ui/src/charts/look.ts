// How charts look: colours are the page's, read when they are drawn, so that a change of theme needs no new chart.
import type uPlot from "uplot";

export function colour(variable: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(variable).trim() || "#888";
}

/**
 * Without a mouse a tap sets the cursor, and browsers send a made-up "mouseleave" right after it: what was tapped
 * should stay.
 */
export function cursorBinding(): uPlot.Cursor.Bind {
  return matchMedia("(hover: none)").matches ? { mouseleave: () => null } : {};
}

const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

export function xAxis(values: uPlot.Axis.Values, more: Partial<uPlot.Axis> = {}): uPlot.Axis {
  return {
    font: FONT,
    stroke: () => colour("--muted"),
    grid: { stroke: () => colour("--grid"), width: 1 },
    ticks: { show: false },
    gap: 6,
    size: 28,
    space: 80,
    values,
    ...more,
  };
}

export function yAxis(format: (value: number) => string): uPlot.Axis {
  return {
    font: FONT,
    stroke: () => colour("--muted"),
    grid: { stroke: () => colour("--grid"), width: 1 },
    ticks: { show: false },
    gap: 8,
    space: 36,
    size: (_plot, values) => 18 + 6.5 * Math.max(2, ...(values ?? []).map((text) => text?.length ?? 0)),
    values: (_plot, splits) => splits.map((value) => (value === null ? "" : format(value))),
  };
}

/** Axis figures: short, and without the noise of binary fractions. */
export function axisFigure(value: number): string {
  const size = Math.abs(value);
  if (size >= 10_000) return new Intl.NumberFormat("en", { notation: "compact" }).format(value);
  return String(Number(value.toPrecision(6)));
}
