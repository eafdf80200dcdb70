// How a history is drawn: the band from min to max, p95, the middle line, and what is marked.
import type uPlot from "uplot";
import { axisFigure, colour, cursorBinding, xAxis, yAxis } from "../charts/look";
import { valueRange } from "../model/axis";
import { axisTimes } from "../model/format";
import { isolated } from "../model/gaps";
import { type HistoryData, markOf } from "../model/history";

/** What the drawing asks for, each time it draws: the chart outlives the data. */
export interface Drawn {
  data: HistoryData | null;
}

export interface ChartEvents {
  onSelect: (from_ms: number, to_ms: number) => void;
  onHover: (at_ms: number | null, left_px: number) => void;
}

function shade(plot: uPlot, from_ms: number, to_ms: number, fill: string | CanvasPattern): void {
  const { left, top, width, height } = plot.bbox;
  const x0 = Math.max(left, plot.valToPos(from_ms, "x", true));
  const x1 = Math.min(left + width, plot.valToPos(to_ms, "x", true));
  if (x1 <= x0) return;
  plot.ctx.fillStyle = fill;
  plot.ctx.fillRect(x0, top, x1 - x0, height);
}

function hatch(plot: uPlot, stroke: string): CanvasPattern | string {
  const size = Math.round(6 * devicePixelRatio);
  const tile = document.createElement("canvas");
  tile.width = size;
  tile.height = size;
  const ctx = tile.getContext("2d");
  if (!ctx) return stroke;
  ctx.strokeStyle = stroke;
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  for (const shift of [-size, 0, size]) {
    ctx.moveTo(shift, size);
    ctx.lineTo(shift + size, 0);
  }
  ctx.stroke();
  return plot.ctx.createPattern(tile, "repeat") ?? stroke;
}

function drawGrounds(plot: uPlot, data: HistoryData): void {
  plot.ctx.save();
  const gap = hatch(plot, colour("--gap-line"));
  for (const { from_ms, to_ms } of data.gaps) {
    shade(plot, from_ms, to_ms, colour("--gap"));
    shade(plot, from_ms, to_ms, gap);
  }
  for (const point of data.points) {
    if (markOf(point) === "provisional") {
      shade(plot, point.at_ms, point.at_ms + data.bucket_ms, colour("--provisional"));
    }
  }
  plot.ctx.restore();
}

function drawMarks(plot: uPlot, data: HistoryData): void {
  const { ctx, bbox } = plot;
  const px = devicePixelRatio;
  const seen = (at: number) => at >= (plot.scales.x?.min ?? 0) && at <= (plot.scales.x?.max ?? 0);
  ctx.save();
  ctx.fillStyle = colour("--revised");
  for (const point of data.points) {
    const middle = point.at_ms + data.bucket_ms / 2;
    if (markOf(point) !== "revised" || !seen(middle)) continue;
    const x = plot.valToPos(middle, "x", true);
    const y = bbox.top + bbox.height;
    ctx.beginPath();
    ctx.moveTo(x, y - 7 * px);
    ctx.lineTo(x + 4 * px, y);
    ctx.lineTo(x - 4 * px, y);
    ctx.fill();
  }
  // A lone bucket has no band to be part of: its range is a stroke.
  ctx.strokeStyle = colour("--band-line");
  ctx.lineWidth = 3 * px;
  const [times, max, min] = plot.data as unknown as [number[], number[], number[]];
  for (const i of isolated(max)) {
    const at = times[i] as number;
    if (!seen(at)) continue;
    const x = plot.valToPos(at, "x", true);
    ctx.beginPath();
    ctx.moveTo(x, plot.valToPos(min[i] as number, "y", true));
    ctx.lineTo(x, plot.valToPos(max[i] as number, "y", true));
    ctx.stroke();
  }
  ctx.restore();
}

function line(variable: string, width: number, dash?: number[]): uPlot.Series {
  return {
    stroke: () => colour(variable),
    width,
    ...(dash ? { dash } : {}),
    points: {
      show: true,
      size: 6,
      fill: () => colour(variable),
      filter: (plot, series) => isolated(plot.data[series] as (number | null)[]),
    },
  };
}

export function historyOptions(drawn: Drawn, events: ChartEvents): Omit<uPlot.Options, "width" | "height"> {
  // Where buckets are narrower than a few pixels the edges would be all that one sees of the band.
  const crowded = (plot: uPlot) => plot.data[0].length * 4 > plot.bbox.width / devicePixelRatio;
  const edge: uPlot.Series = {
    stroke: (plot) => (crowded(plot) ? "transparent" : colour("--band-line")),
    width: 1,
    points: { show: false },
  };
  return {
    ms: 1,
    padding: [12, 16, 0, 0],
    legend: { show: false },
    cursor: {
      y: false,
      points: { size: 8 },
      drag: { x: true, y: false, setScale: false, dist: 6 },
      // A double click must not reset what the address says.
      bind: { ...cursorBinding(), dblclick: () => null },
    },
    scales: { x: { time: true }, y: { range: (_plot, min, max) => valueRange(min, max) } },
    axes: [xAxis((_plot, splits, _axis, _space, step) => axisTimes(splits, step)), yAxis(axisFigure)],
    series: [{}, edge, edge, line("--line-2", 1.5, [5, 4]), line("--line", 2)],
    bands: [{ series: [1, 2], fill: () => colour("--band") }],
    hooks: {
      drawAxes: [(plot) => drawn.data && drawGrounds(plot, drawn.data)],
      draw: [(plot) => drawn.data && drawMarks(plot, drawn.data)],
      setSelect: [
        (plot) => {
          const { left, width } = plot.select;
          if (width < 6) return;
          const from_ms = plot.posToVal(left, "x");
          const to_ms = plot.posToVal(left + width, "x");
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          events.onSelect(from_ms, to_ms);
        },
      ],
      setCursor: [
        (plot) => {
          const left = plot.cursor.left ?? -1;
          if (left < 0) events.onHover(null, 0);
          else events.onHover(plot.posToVal(left, "x"), left + plot.bbox.left / devicePixelRatio);
        },
      ],
    },
  };
}
