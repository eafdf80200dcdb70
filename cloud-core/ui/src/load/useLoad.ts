// Loading and polling with the same manners everywhere: the last data stays, a retry waits as long as the server
// asks, a hidden tab asks for nothing, and what can't be updated is reported to the banner.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, retryDelay_ms, sentenceOf } from "../api/errors";
import { clearOutage, reportOutage } from "./outages";

export interface Loaded<T> {
  data: T | null;
  /** What `data` belongs to; another than the present key while the next is on its way. */
  data_key: string | null;
  loading: boolean;
  /** Nothing newer could be had; set also while a retry is on its way. */
  error: ApiError | null;
  reload: () => void;
}

interface State<T> {
  data: T | null;
  data_key: string | null;
  loading: boolean;
  error: ApiError | null;
}

/** `key` names the question; null asks nothing. `what` is for people, "the overview", and its outage's name. */
export function useLoad<T>(
  key: string | null,
  what: string,
  load: (signal: AbortSignal) => Promise<T>,
  every_ms: number | null = null,
): Loaded<T> {
  const [state, setState] = useState<State<T>>({
    data: null,
    data_key: null,
    loading: key !== null,
    error: null,
  });
  const latest = useRef(load);
  latest.current = load;
  const again = useRef<() => void>(() => {});

  useEffect(() => {
    if (key === null) return;
    const controller = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    let busy = false;

    const schedule = (delay_ms: number) => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (!document.hidden) void run();
      }, delay_ms);
    };
    const run = async () => {
      if (busy) return;
      busy = true;
      clearTimeout(timer);
      setState((before) => ({ ...before, loading: true }));
      try {
        const data = await latest.current(controller.signal);
        if (controller.signal.aborted) return;
        failures = 0;
        clearOutage(what);
        setState({ data, data_key: key, loading: false, error: null });
        if (every_ms !== null) schedule(every_ms);
      } catch (caught) {
        if (controller.signal.aborted) return;
        const error =
          caught instanceof ApiError ? caught : new ApiError("unavailable", 0, sentenceOf(caught));
        setState((before) => ({ ...before, loading: false, error }));
        if (!error.retryable) {
          clearOutage(what);
          return;
        }
        failures++;
        const delay_ms = retryDelay_ms(failures, error.retry_after_ms);
        reportOutage(what, {
          what,
          message: error.message,
          retry_at_ms: Date.now() + delay_ms,
          limited: error.kind === "limited",
          retry: error.kind === "limited" ? null : () => void run(),
        });
        schedule(delay_ms);
      } finally {
        busy = false;
      }
    };
    const onReturn = () => {
      if (!document.hidden && (every_ms !== null || failures > 0)) void run();
    };

    again.current = () => void run();
    document.addEventListener("visibilitychange", onReturn);
    window.addEventListener("online", onReturn);
    void run();
    return () => {
      controller.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onReturn);
      window.removeEventListener("online", onReturn);
    };
  }, [key, what, every_ms]);

  // The next question of the same kind may fail as well: only leaving ends what is reported.
  useEffect(() => () => clearOutage(what), [what]);

  return { ...state, reload: () => again.current() };
}

/** Draws again every so often, for ages and countdowns. */
export function useTick(every_ms: number): number {
  const [, redraw] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) redraw((n) => n + 1);
    }, every_ms);
    return () => clearInterval(timer);
  }, [every_ms]);
  return Date.now();
}
