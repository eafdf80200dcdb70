// How a live panel is drawn: the sliding window, one line or many, and what the pointer is at.
import type uPlot from "uplot";
import { axisFigure, colour, cursorBinding, xAxis, yAxis } from "../charts/look";
import { valueRange } from "../model/axis";
import { clockTime, steady } from "../model/format";
import { isolated } from "../model/gaps";

/** What the pointer is at: written while it moves, without drawing the page again. */
export interface Pointed {
  readout: HTMLElement | null;
  names: string[];
  line: number | null;
}

const MINUTE_MS = 60_000;

function ago(ms: number): string {
  const minutes = Math.round(ms / MINUTE_MS);
  return minutes === 0 ? "now" : `−${minutes} min`;
}

/** The point under the pointer; of several lines the one nearest to it. */
function nearest(plot: uPlot): { line: number; at_ms: number; value: number } | null {
  const { idx, top } = plot.cursor;
  if (idx == null) return null;
  let found: { line: number; at_ms: number; value: number; away_px: number } | null = null;
  for (let line = 0; line + 1 < plot.data.length; line++) {
    const column = plot.data[line + 1] as (number | null | undefined)[];
    // Other lines have their points at other moments: the last one before counts.
    let i = idx;
    while (i > 0 && column[i] === undefined) i--;
    const value = column[i];
    if (value == null) continue;
    const away_px = Math.abs(plot.valToPos(value, "y") - (top ?? 0));
    if (!found || away_px < found.away_px) found = { line, at_ms: plot.data[0][i] as number, value, away_px };
  }
  return found;
}

function tell(plot: uPlot, pointed: Pointed): void {
  const near = nearest(plot);
  pointed.line = near?.line ?? null;
  if (!pointed.readout) return;
  const name = near && pointed.names.length > 1 ? `${pointed.names[near.line] ?? ""}  ` : "";
  pointed.readout.textContent = near ? `${name}${clockTime(near.at_ms)}  ${steady(near.value)}` : "";
}

export function liveOptions(lines: number, pointed: Pointed): Omit<uPlot.Options, "width" | "height"> {
  const many = lines > 1;
  const line: uPlot.Series = {
    stroke: () => colour("--line"),
    width: many ? 1 : 2,
    ...(many ? { alpha: 0.6 } : { fill: () => colour("--line-fill") }),
    points: {
      show: true,
      size: 5,
      fill: () => colour("--line"),
      filter: (plot, series) => isolated(plot.data[series] as (number | null)[]),
    },
  };
  return {
    ms: 1,
    padding: [10, 14, 0, 0],
    legend: { show: false },
    // One moment under the pointer in all charts: what happened here when that happened there.
    cursor: {
      y: false,
      drag: { x: false, y: false },
      sync: { key: "live" },
      points: { size: 7 },
      bind: cursorBinding(),
    },
    scales: { x: { time: true }, y: { range: (_plot, min, max) => valueRange(min, max) } },
    axes: [
      xAxis((plot, splits) => splits.map((at) => ago((plot.scales.x?.max ?? at) - at)), {
        splits: (plot) =>
          [5, 4, 3, 2, 1, 0].map((minutes) => (plot.scales.x?.max ?? 0) - minutes * MINUTE_MS),
      }),
      yAxis(axisFigure),
    ],
    series: [{}, ...Array.from({ length: lines }, () => line)],
    hooks: { setCursor: [(plot) => tell(plot, pointed)] },
  };
}
