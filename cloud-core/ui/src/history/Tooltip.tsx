import { clockTime, count, dayTime, measured } from "../model/format";
import { type HistoryData, type HistoryPoint, markOf } from "../model/history";

interface TooltipProps {
  data: HistoryData;
  point: HistoryPoint | null;
  at_ms: number;
  left_px: number;
  width_px: number;
}

const MARK_TEXT = {
  provisional: "Still open: it may grow.",
  revised: (revision: number) => `Written again (revision ${revision}): events came late.`,
};

export function bucketText(data: HistoryData, at_ms: number): string {
  if (data.resolution === "1d") return `${new Date(at_ms).toISOString().slice(0, 10)} (UTC day)`;
  return `${dayTime(at_ms)} – ${clockTime(at_ms + data.bucket_ms).slice(0, 5)}`;
}

export function Tooltip({ data, point, at_ms, left_px, width_px }: TooltipProps) {
  const right = left_px > width_px / 2;
  const style = right ? { right: `${width_px - left_px + 14}px` } : { left: `${left_px + 14}px` };
  const inGap = data.gaps.some((gap) => at_ms >= gap.from_ms && at_ms < gap.to_ms);
  if (!point) {
    if (!inGap) return null;
    return (
      <div class="tooltip" style={style} data-testid="tooltip">
        <b>{dayTime(at_ms)}</b>
        <p>Nothing was measured here.</p>
      </div>
    );
  }
  const mark = markOf(point);
  const figures: [string, string, string][] = [
    ["max", measured(point.max), "band"],
    ["p95", measured(point.p95), "p95"],
    ["p50", measured(point.p50), "line"],
    ["avg", measured(point.avg), ""],
    ["min", measured(point.min), "band"],
    ["count", count(point.count), ""],
    ["sum", measured(point.sum), ""],
  ];
  return (
    <div class="tooltip" style={style} data-testid="tooltip">
      <b>{bucketText(data, point.at_ms)}</b>
      <dl>
        {figures.map(([name, value, key]) => (
          <div key={name}>
            <dt>
              <span class={`key ${key}`} />
              {name}
            </dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {mark === "provisional" && <p class="mark-provisional">{MARK_TEXT.provisional}</p>}
      {mark === "revised" && <p class="mark-revised">{MARK_TEXT.revised(point.revision)}</p>}
    </div>
  );
}
