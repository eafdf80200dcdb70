// Zooming and panning on a time range. Pure: the range and now are arguments.

const AHEAD_MAX = 0.05;

export interface Span {
  from_ms: number;
  to_ms: number;
}

const MINUTE_MS = 60_000;
/** Below five minutes the finest bucket, a minute, shows nothing more. */
export const SPAN_MIN_MS = 5 * MINUTE_MS;
/** Rollups are kept for two years. */
export const SPAN_MAX_MS = 2 * 366 * 24 * 60 * MINUTE_MS;

/** A range of allowed width that does not run away into the future, on whole seconds. */
export function clampSpan(span: Span, now_ms: number): Span {
  const width = Math.min(SPAN_MAX_MS, Math.max(SPAN_MIN_MS, span.to_ms - span.from_ms));
  const middle = (span.from_ms + span.to_ms) / 2;
  let from_ms = span.to_ms - span.from_ms === width ? span.from_ms : middle - width / 2;
  // A little of what is ahead shows that this is the end; more would be an empty picture.
  from_ms = Math.min(from_ms, now_ms + width * AHEAD_MAX - width);
  from_ms = Math.round(from_ms / 1000) * 1000;
  return { from_ms, to_ms: from_ms + Math.round(width / 1000) * 1000 };
}

/** Factor below 1 looks closer, above 1 further; `at` (0 to 1) stays where it is. */
export function zoomSpan(span: Span, factor: number, at: number, now_ms: number): Span {
  const width = span.to_ms - span.from_ms;
  const next = Math.min(SPAN_MAX_MS, Math.max(SPAN_MIN_MS, width * factor));
  const held_ms = span.from_ms + width * at;
  return clampSpan({ from_ms: held_ms - next * at, to_ms: held_ms + next * (1 - at) }, now_ms);
}

/** By a share of the width: negative is back in time. */
export function panSpan(span: Span, share: number, now_ms: number): Span {
  const by_ms = (span.to_ms - span.from_ms) * share;
  return clampSpan({ from_ms: span.from_ms + by_ms, to_ms: span.to_ms + by_ms }, now_ms);
}

export type ZoomAction = "in" | "out" | "back" | "forward" | "now";

const ACTION_OF_KEY: Record<string, ZoomAction> = {
  "+": "in",
  "=": "in",
  "-": "out",
  _: "out",
  ArrowLeft: "back",
  ArrowRight: "forward",
  ArrowUp: "in",
  ArrowDown: "out",
  End: "now",
};

export function zoomActionOf(key: string): ZoomAction | null {
  return ACTION_OF_KEY[key] ?? null;
}

export function applyZoom(span: Span, action: ZoomAction, now_ms: number): Span {
  switch (action) {
    case "in":
      return zoomSpan(span, 0.5, 0.5, now_ms);
    case "out":
      return zoomSpan(span, 2, 0.5, now_ms);
    case "back":
      return panSpan(span, -0.25, now_ms);
    case "forward":
      return panSpan(span, 0.25, now_ms);
    case "now":
      return { from_ms: now_ms - (span.to_ms - span.from_ms), to_ms: now_ms };
  }
}
