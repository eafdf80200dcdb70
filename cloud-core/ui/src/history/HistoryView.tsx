import { useState } from "preact/hooks";
import * as api from "../api/endpoints";
import { sentenceOf } from "../api/errors";
import type { Metric } from "../api/types";
import { useLoad, useTick } from "../load/useLoad";
import { count, measured, rangeText } from "../model/format";
import { type HistoryData, markOf, summary } from "../model/history";
import { orderMetrics } from "../model/metrics";
import { PER_BUCKET } from "../model/resolution";
import { formatRoute, historyOf, type Target, targetName } from "../model/route";
import type { Span } from "../model/zoom";
import { Icon } from "../shell/Icon";
import { Empty, Failed, Loading } from "../shell/states";
import { Picker } from "../target/Picker";
import { TargetBar } from "../target/TargetBar";
import { downloadCsv } from "./csv";
import { Figures } from "./Figures";
import { HistoryChart } from "./HistoryChart";
import { Toolbar } from "./Toolbar";
import { type SeriesQuestion, seriesParams, useSeries } from "./useSeries";
import { type HistoryRoute, type Move, useSpan } from "./useSpan";

const TIME_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** The metrics to choose from: what the device sent comes first, what the schemas know follows. */
function useMetrics(target: Target) {
  return useLoad(
    `metrics/${JSON.stringify(target)}`,
    "the list of metrics",
    async (signal): Promise<Metric[]> => {
      const known = api.metrics(signal);
      if (target.kind !== "device") return orderMetrics(await known, []);
      const page = await api.devices({ fleet: target.fleet, q: target.device, limit: 100 }, signal);
      const sent = page.devices.find((one) => one.device === target.device)?.metrics ?? [];
      return orderMetrics(await known, sent);
    },
  );
}

function Legend({ data, line }: { data: HistoryData; line: string }) {
  const marks = new Set(data.points.map(markOf));
  return (
    <ul class="legend">
      <li>
        <span class="key line" /> {line === "avg" ? "average" : "p50"}
      </li>
      <li>
        <span class="key p95" /> p95
      </li>
      <li>
        <span class="key band" /> min to max
      </li>
      {data.gaps.length > 0 && (
        <li>
          <span class="key gap" /> no data
        </li>
      )}
      {marks.has("provisional") && (
        <li>
          <span class="key provisional" /> still open
        </li>
      )}
      {marks.has("revised") && (
        <li>
          <span class="key revised" /> written again, events came late
        </li>
      )}
    </ul>
  );
}

function Csv({ question, span }: { question: SeriesQuestion; span: Span }) {
  const [state, setState] = useState<{ busy: boolean; error: string | null }>({ busy: false, error: null });
  const save = async () => {
    setState({ busy: true, error: null });
    const name = `${targetName(question.target)}-${question.metric}.csv`.replaceAll(/[^\w.-]+/g, "_");
    try {
      await downloadCsv(seriesParams(question, span), name);
      setState({ busy: false, error: null });
    } catch (error) {
      setState({ busy: false, error: sentenceOf(error) });
    }
  };
  return (
    <>
      {state.error && <span class="field-error">{state.error}</span>}
      <button
        type="button"
        class="button small"
        disabled={state.busy}
        onClick={() => void save()}
        data-testid="csv"
      >
        <Icon name="download" />
        {state.busy ? "Saving…" : "CSV"}
      </button>
    </>
  );
}

interface ChartCardProps {
  route: HistoryRoute;
  question: SeriesQuestion;
  span: Span;
  move: Move;
}

function ChartCard({ route, question, span, move }: ChartCardProps) {
  const series = useSeries(question, span);
  const data = series.data?.metric === question.metric ? series.data : null;
  const sum = data && summary(data);
  if (!data && series.error) return <Failed error={series.error} onRetry={series.reload} />;
  const stale = series.error !== null;
  return (
    <section class={stale ? "card history-card stale" : "card history-card"} aria-busy={series.loading}>
      <header>
        <div>
          <h2>{question.metric}</h2>
          <p data-testid="range">{rangeText(span.from_ms, span.to_ms)}</p>
        </div>
        <div class="history-facts">
          {data && (
            <span class="badge" data-testid="resolution" data-resolution={data.resolution}>
              {PER_BUCKET[data.resolution]}
            </span>
          )}
          {data && (
            <span class="badge" data-testid="points" data-points={data.points.length}>
              {count(data.points.length)} points{data.cut ? ", cut" : ""}
            </span>
          )}
          <Csv question={question} span={span} />
        </div>
      </header>
      {series.loading && <div class="progress" />}
      {stale && (
        <p class="inline-error" role="status">
          This range is not loaded yet. {series.error?.message}
        </p>
      )}
      {data ? (
        <div
          class="history-chart"
          role="group"
          tabIndex={0}
          aria-label={
            sum
              ? `${question.metric}, ${sum.buckets} buckets from ${measured(sum.min)} to ${measured(sum.max)}. Arrow keys move, plus and minus zoom.`
              : `${question.metric}, no data. Arrow keys move, plus and minus zoom.`
          }
          data-testid="history-chart"
          data-from={new Date(span.from_ms).toISOString()}
          data-to={new Date(span.to_ms).toISOString()}
        >
          <HistoryChart
            data={data}
            line={route.line}
            span={span}
            height_px={innerWidth < 760 ? 280 : 400}
            onSpan={move}
          />
          {data.points.length === 0 && (
            <div class="over-chart">
              <p>
                <b>No values in this range.</b>
              </p>
              <p>Zoom out (−), move on (← →), or choose another metric.</p>
            </div>
          )}
        </div>
      ) : (
        <Loading what="the history" lines={6} />
      )}
      {data && (
        <footer>
          <Legend data={data} line={route.line} />
          <p class="muted">
            Percentiles within {measured(data.quantile_error * 100)} %. Times in {TIME_ZONE}. Drag to zoom.
          </p>
        </footer>
      )}
      {data && data.points.length > 0 && <Figures data={data} />}
    </section>
  );
}

function History({ route, target }: { route: HistoryRoute; target: Target }) {
  useTick(10_000);
  const metrics = useMetrics(target);
  const { span, move } = useSpan(route);
  const metric = route.metric ?? metrics.data?.[0]?.name ?? null;
  if (metric === null && !metrics.data) {
    return metrics.error ? (
      <Failed error={metrics.error} onRetry={metrics.reload} />
    ) : (
      <Loading what="the metrics" />
    );
  }
  if (metric === null) {
    return (
      <Empty icon="history" title="No metric is known yet">
        <p>Metrics come from the registered schemas. Register one, or wait for the first event.</p>
      </Empty>
    );
  }
  const list = metrics.data ?? [];
  const shown = list.some((one) => one.name === metric)
    ? list
    : [...list, { name: metric, description: "", deprecated: false, since_schema: 0 }];
  return (
    <>
      <Toolbar route={route} metric={metric} metrics={shown} span={span} move={move} />
      <ChartCard
        route={route}
        question={{ target, metric, resolution: route.resolution }}
        span={span}
        move={move}
      />
    </>
  );
}

export function HistoryView({ route }: { route: HistoryRoute }) {
  if (!route.target) return <Picker view="history" />;
  return (
    <>
      <TargetBar target={route.target} view="history" metric={route.metric} />
      <History key={formatRoute(historyOf(route.target))} route={route} target={route.target} />
    </>
  );
}
