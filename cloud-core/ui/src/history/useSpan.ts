// The visible range, read from the address and written back to it: each deliberate step is one press of "back".
import { useCallback, useEffect, useRef } from "preact/hooks";
import { now_ms } from "../api/clock";
import { drawable } from "../model/resolution";
import { duration_ms, type Range, type Route } from "../model/route";
import { applyZoom, clampSpan, type Span, zoomActionOf } from "../model/zoom";
import { isTyping } from "../shell/keys";
import { go } from "../shell/router";

export type HistoryRoute = Extract<Route, { view: "history" }>;

// Small moves closer together than this are one gesture, and one entry in the browser's history.
const GESTURE_MS = 700;
// A range that moves with time moves in steps, so that not every second asks for it anew.
const FOLLOW_STEP_MS = 30_000;

export function spanOf(range: Range, at_ms: number): Span {
  if (range.kind === "fixed") return { from_ms: range.from_ms, to_ms: range.to_ms };
  const to_ms = Math.ceil(at_ms / FOLLOW_STEP_MS) * FOLLOW_STEP_MS;
  return { from_ms: to_ms - (duration_ms(range.last) ?? 0), to_ms };
}

export type Move = (span: Span, kind: "step" | "gesture") => void;

export function useSpan(route: HistoryRoute): { span: Span; move: Move } {
  const span = spanOf(route.range, now_ms());
  const latest = useRef({ route, span });
  latest.current = { route, span };
  const moved_at_ms = useRef(0);

  const move = useCallback<Move>((next, kind) => {
    const { from_ms, to_ms } = clampSpan(next, now_ms());
    const at_ms = Date.now();
    const same = kind === "gesture" && at_ms - moved_at_ms.current < GESTURE_MS;
    moved_at_ms.current = kind === "gesture" ? at_ms : 0;
    const { route } = latest.current;
    // A chosen resolution holds as long as it can be drawn.
    const fits = route.resolution === "auto" || drawable(route.resolution, to_ms - from_ms);
    const resolution = fits ? route.resolution : "auto";
    go({ ...route, resolution, range: { kind: "fixed", from_ms, to_ms } }, same);
  }, []);

  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      if (isTyping(event)) return;
      const action = zoomActionOf(event.key);
      // Up and down scroll the page, unless the chart itself has the focus.
      const onChart = (event.target as HTMLElement | null)?.closest(".history-chart") != null;
      if (event.key === "Backspace") history.back();
      else if (!action || (/^Arrow(Up|Down)$/.test(event.key) && !onChart)) return;
      else if (action === "now" && latest.current.route.range.kind === "last") return;
      else move(applyZoom(latest.current.span, action, now_ms()), event.repeat ? "gesture" : "step");
      event.preventDefault();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, [move]);

  return { span, move };
}
