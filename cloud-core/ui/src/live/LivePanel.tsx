// One metric of the last five minutes: the value now, how old it is, and the line.
import { useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Metric } from "../api/types";
import { axisFigure, colour, xAxis, yAxis } from "../charts/look";
import { Plot } from "../charts/Plot";
import { valueRange } from "../model/axis";
import { clockTime, duration, steady } from "../model/format";
import { isolated, LIVE_GAP_MS, liveGap_ms, withBreaks } from "../model/gaps";
import { LIVE_WINDOW_MS, type MetricPanel } from "../model/liveSeries";

interface LivePanelProps {
  panel: MetricPanel;
  about: Metric | null;
  now_ms: number;
  height_px: number;
  historyHref: string;
}

const MINUTE_MS = 60_000;

function optionsFor(
  lines: number,
  readout: { current: HTMLElement | null },
): Omit<uPlot.Options, "width" | "height"> {
  const many = lines > 1;
  const line: uPlot.Series = {
    stroke: () => colour("--line"),
    width: many ? 1 : 2,
    ...(many ? { alpha: 0.55 } : { fill: () => colour("--line-fill") }),
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
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "live" }, points: { size: 7 } },
    scales: { x: { time: true }, y: { range: (_plot, min, max) => valueRange(min, max) } },
    axes: [
      xAxis((plot, splits) => splits.map((at) => ago((plot.scales.x?.max ?? at) - at)), {
        splits: (plot) =>
          [5, 4, 3, 2, 1, 0].map((minutes) => (plot.scales.x?.max ?? 0) - minutes * MINUTE_MS),
      }),
      yAxis(axisFigure),
    ],
    series: [{}, ...Array.from({ length: lines }, () => line)],
    hooks: {
      setCursor: [
        (plot) => {
          const element = readout.current;
          const at = plot.cursor.idx;
          if (!element) return;
          const values = at == null ? [] : plot.data.slice(1).map((column) => column[at]);
          const known = values.filter((value): value is number => value != null);
          element.textContent =
            at == null || known.length === 0
              ? ""
              : `${clockTime(plot.data[0][at] as number)}  ${known.length === 1 ? steady(known[0]) : `${known.length} values`}`;
        },
      ],
    },
  };
}

function ago(ms: number): string {
  const minutes = Math.round(ms / MINUTE_MS);
  return minutes === 0 ? "now" : `−${minutes} min`;
}

function dataOf(panel: MetricPanel): uPlot.AlignedData {
  const tables = panel.series.map((series) => {
    const out = withBreaks(series.times_ms, [series.values], liveGap_ms(series.times_ms));
    return [out.times, out.columns[0] ?? []] as uPlot.AlignedData;
  });
  return tables.length === 1 ? (tables[0] as uPlot.AlignedData) : uPlot.join(tables);
}

/** The newest point of all lines; with several lines their mean, as each has its own newest value. */
function newest(panel: MetricPanel): { at_ms: number; value: number } | null {
  let at_ms = Number.NEGATIVE_INFINITY;
  let [sum, lines] = [0, 0];
  for (const series of panel.series) {
    const value = series.values.at(-1);
    if (value === undefined) continue;
    at_ms = Math.max(at_ms, series.times_ms.at(-1) ?? at_ms);
    sum += value;
    lines++;
  }
  return lines === 0 ? null : { at_ms, value: sum / lines };
}

export function LivePanel({ panel, about, now_ms, height_px, historyHref }: LivePanelProps) {
  const readout = useRef<HTMLElement | null>(null);
  const lines = panel.series.length;
  const options = useMemo(() => optionsFor(lines, readout), [lines]);
  const data = dataOf(panel);
  const last = newest(panel);
  const age_ms = last === null ? null : Math.max(0, now_ms - last.at_ms);
  const old = age_ms === null || age_ms > LIVE_GAP_MS;
  return (
    <section
      class={old ? "card live-panel old" : "card live-panel"}
      aria-label={panel.metric}
      data-testid="live-panel"
    >
      <header>
        <div class="live-name">
          <h3>
            <a href={historyHref} title={`History of ${panel.metric}`}>
              {panel.metric}
            </a>
            {about?.deprecated && <span class="tag">deprecated</span>}
          </h3>
          <p>{about?.description ?? ""}</p>
        </div>
        <div class="live-now">
          <output aria-live="off" data-testid="live-value" data-metric={panel.metric}>
            {steady(last?.value)}
          </output>
          <small class={old ? "warn-text" : ""}>
            {lines > 1 ? `mean of ${lines}, ` : ""}
            {age_ms === null
              ? "no value"
              : age_ms < 1500
                ? "just now"
                : `${duration(Math.round(age_ms / 1000) * 1000)} ago`}
          </small>
        </div>
      </header>
      <div class="live-chart" data-testid="live-chart" data-metric={panel.metric}>
        <span class="readout" ref={readout} aria-hidden="true" />
        <Plot
          options={options}
          data={data}
          height_px={height_px}
          from_ms={now_ms - LIVE_WINDOW_MS}
          to_ms={now_ms}
        />
      </div>
    </section>
  );
}
