// The series for what is seen: asked again, a moment after the last move, for every range that comes into view.
import { useEffect, useState } from "preact/hooks";
import type { Params } from "../api/client";
import * as api from "../api/endpoints";
import type { Resolution, SeriesPage } from "../api/types";
import { type Loaded, useLoad } from "../load/useLoad";
import { type HistoryData, joinPages } from "../model/history";
import { asked, POINTS_MAX } from "../model/resolution";
import { type Target, targetParams } from "../model/route";
import type { Span } from "../model/zoom";

const SETTLE_MS = 180;
const PAGE_POINTS = 5000;

/** The value when it has not changed for a moment; the first one at once. */
function useSettled<T>(value: T, same: string): T {
  const [settled, setSettled] = useState({ value, same });
  useEffect(() => {
    const timer = setTimeout(() => setSettled({ value, same }), SETTLE_MS);
    return () => clearTimeout(timer);
  }, [same]);
  return settled.value;
}

async function loadPages(params: Params, signal: AbortSignal): Promise<HistoryData> {
  const pages: SeriesPage[] = [];
  let cursor: string | null = null;
  let points = 0;
  do {
    const page: SeriesPage = await api.seriesPage({ ...params, cursor }, signal);
    pages.push(page);
    points += page.points.length;
    cursor = page.next_cursor;
  } while (cursor !== null && points < POINTS_MAX);
  return joinPages(pages);
}

export interface SeriesQuestion {
  target: Target;
  metric: string;
  resolution: Resolution | "auto";
}

export function seriesParams(question: SeriesQuestion, span: Span): Params {
  const range = asked(span, question.resolution);
  return {
    ...targetParams(question.target),
    metric: question.metric,
    from: new Date(range.from_ms).toISOString(),
    to: new Date(range.to_ms).toISOString(),
    resolution: question.resolution,
  };
}

export function useSeries(question: SeriesQuestion | null, span: Span): Loaded<HistoryData> {
  const params = question && seriesParams(question, span);
  const key = JSON.stringify(params);
  const settled = useSettled(params, key);
  return useLoad(settled && JSON.stringify(settled), "the history", (signal) =>
    loadPages({ ...settled, limit: PAGE_POINTS }, signal),
  );
}
