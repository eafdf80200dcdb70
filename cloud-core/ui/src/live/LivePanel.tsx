// One metric of the last five minutes: the value now, how old it is, and the line.
import { useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Metric } from "../api/types";
import { Plot } from "../charts/Plot";
import { duration, steady } from "../model/format";
import { LIVE_GAP_MS, liveGap_ms, withBreaks } from "../model/gaps";
import { LIVE_WINDOW_MS, type LiveSeries, type MetricPanel } from "../model/liveSeries";
import { liveOptions, type Pointed } from "./options";

interface LivePanelProps {
  panel: MetricPanel;
  about: Metric | null;
  now_ms: number;
  height_px: number;
  historyHref: string;
  /** Of several lines one was clicked. */
  onPick: (series: LiveSeries) => void;
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

export function LivePanel({ panel, about, now_ms, height_px, historyHref, onPick }: LivePanelProps) {
  const pointed = useRef<Pointed>({ readout: null, names: [], line: null }).current;
  const lines = panel.series.length;
  pointed.names = panel.series.map((series) => series.device);
  const options = useMemo(() => liveOptions(lines, pointed), [lines]);
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
            {about?.unit ? `${about.unit}, ` : ""}
            {lines > 1 ? `mean of ${lines}, ` : ""}
            {age_ms === null
              ? "no value"
              : age_ms < 1500
                ? "just now"
                : `${duration(Math.round(age_ms / 1000) * 1000)} ago`}
          </small>
        </div>
      </header>
      {/* biome-ignore lint/a11y/useKeyWithClickEvents: the same devices are links in the group's list */}
      {/* biome-ignore lint/a11y/noStaticElementInteractions: as above */}
      <div
        class={lines > 1 ? "live-chart pick" : "live-chart"}
        onClick={() => {
          const series = pointed.line === null ? undefined : panel.series[pointed.line];
          if (lines > 1 && series) onPick(series);
        }}
        data-testid="live-chart"
        data-metric={panel.metric}
      >
        <span
          class="readout"
          ref={(element: HTMLElement | null) => {
            pointed.readout = element;
          }}
          aria-hidden="true"
        />
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
