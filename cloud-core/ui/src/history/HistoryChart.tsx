import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type uPlot from "uplot";
import { now_ms } from "../api/clock";
import { Plot } from "../charts/Plot";
import { columnsOf, type HistoryData, pointAt } from "../model/history";
import type { Line } from "../model/route";
import { panSpan, type Span, zoomSpan } from "../model/zoom";
import { listenToGestures } from "./gestures";
import { type Drawn, historyOptions } from "./options";
import { Tooltip } from "./Tooltip";

interface HistoryChartProps {
  data: HistoryData;
  line: Line;
  span: Span;
  height_px: number;
  /** A deliberate step, or one of many small ones of a gesture. */
  onSpan: (span: Span, kind: "step" | "gesture") => void;
}

export function HistoryChart({ data, line, span, height_px, onSpan }: HistoryChartProps) {
  const drawn = useRef<Drawn>({ data: null });
  drawn.current.data = data;
  const latest = useRef({ span, onSpan });
  latest.current = { span, onSpan };
  const [plot, setPlot] = useState<uPlot | null>(null);
  const [hover, setHover] = useState<{ at_ms: number; left_px: number } | null>(null);

  const options = useMemo(
    () =>
      historyOptions(drawn.current, {
        onSelect: (from_ms, to_ms) => latest.current.onSpan({ from_ms, to_ms }, "step"),
        onHover: (at_ms, left_px) => setHover(at_ms === null ? null : { at_ms, left_px }),
      }),
    [],
  );
  const columns = useMemo(() => {
    const { times, min, max, line: main, p95 } = columnsOf(data, line);
    return [times, max, min, p95, main] as uPlot.AlignedData;
  }, [data, line]);

  useEffect(() => {
    if (!plot) return;
    const move = (span: Span) => {
      // What the tooltip stood at has moved away under it.
      plot.setCursor({ left: -10, top: -10 });
      latest.current.onSpan(span, "gesture");
    };
    return listenToGestures(plot.over, {
      zoom: (factor, at) => move(zoomSpan(latest.current.span, factor, at, now_ms())),
      pan: (share) => move(panSpan(latest.current.span, share, now_ms())),
    });
  }, [plot]);

  const point = hover && pointAt(data, hover.at_ms);
  return (
    <div class="history-plot">
      <Plot
        options={options}
        data={columns}
        height_px={height_px}
        from_ms={span.from_ms}
        to_ms={span.to_ms}
        onReady={setPlot}
      />
      {hover && plot && (
        <Tooltip
          data={data}
          point={point}
          at_ms={hover.at_ms}
          left_px={hover.left_px}
          width_px={plot.width}
        />
      )}
    </div>
  );
}
