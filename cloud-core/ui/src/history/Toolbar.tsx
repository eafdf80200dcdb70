import { now_ms } from "../api/clock";
import type { Metric, Resolution } from "../api/types";
import { drawable, RESOLUTION_NAME } from "../model/resolution";
import type { Line } from "../model/route";
import { applyZoom, type Span, type ZoomAction } from "../model/zoom";
import { Icon, type IconName } from "../shell/Icon";
import { go } from "../shell/router";
import type { HistoryRoute, Move } from "./useSpan";

const PRESETS: [string, string][] = [
  ["1h", "1 h"],
  ["6h", "6 h"],
  ["1d", "1 d"],
  ["7d", "7 d"],
  ["30d", "30 d"],
];

const STEPS: [ZoomAction, IconName, string, string][] = [
  ["back", "left", "Earlier", "←"],
  ["out", "minus", "Further", "−"],
  ["in", "plus", "Closer", "+"],
  ["forward", "right", "Later", "→"],
];

interface ToolbarProps {
  route: HistoryRoute;
  metric: string;
  metrics: Metric[];
  span: Span;
  move: Move;
}

export function Toolbar({ route, metric, metrics, span, move }: ToolbarProps) {
  const width_ms = span.to_ms - span.from_ms;
  return (
    <div class="toolbar" role="toolbar" aria-label="What to show">
      <label class="field grow">
        <span>Metric</span>
        <select
          value={metric}
          onChange={(event) => go({ ...route, metric: event.currentTarget.value })}
          data-testid="metric"
        >
          {metrics.map((one) => (
            <option key={one.name} value={one.name}>
              {one.name}
              {one.deprecated ? " (deprecated)" : ""}
            </option>
          ))}
        </select>
      </label>
      <fieldset class="segmented" aria-label="Range">
        {PRESETS.map(([last, label]) => (
          <button
            type="button"
            key={last}
            aria-pressed={route.range.kind === "last" && route.range.last === last}
            onClick={() => go({ ...route, range: { kind: "last", last }, resolution: "auto" })}
            data-testid={`preset-${last}`}
          >
            {label}
          </button>
        ))}
      </fieldset>
      <fieldset class="segmented icons" aria-label="Zoom and move">
        {STEPS.map(([action, icon, label, key]) => (
          <button
            type="button"
            key={action}
            aria-label={label}
            title={`${label} (${key})`}
            onClick={() => move(applyZoom(span, action, now_ms()), "step")}
            data-testid={`zoom-${action}`}
          >
            <Icon name={icon} />
          </button>
        ))}
      </fieldset>
      <label class="field">
        <span>Line</span>
        <select
          value={route.line}
          onChange={(event) => go({ ...route, line: event.currentTarget.value as Line }, true)}
          data-testid="line"
        >
          <option value="p50">p50</option>
          <option value="avg">Average</option>
        </select>
      </label>
      <label class="field">
        <span>Buckets</span>
        <select
          value={route.resolution}
          onChange={(event) =>
            go({ ...route, resolution: event.currentTarget.value as Resolution | "auto" }, true)
          }
          data-testid="resolution-choice"
        >
          <option value="auto">Auto</option>
          {(Object.keys(RESOLUTION_NAME) as Resolution[]).map((resolution) => (
            <option key={resolution} value={resolution} disabled={!drawable(resolution, width_ms)}>
              {RESOLUTION_NAME[resolution]}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}
