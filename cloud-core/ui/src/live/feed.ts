// The stream of /v1/live, for as long as a view shows it: connects, notices silence, reconnects, and says which.
import { urlOf } from "../api/client";
import { now_ms } from "../api/clock";
import { type ApiError, problemToError, retryAfter_ms, retryDelay_ms } from "../api/errors";
import type { LiveMessage } from "../api/types";
import { clearOutage, reportOutage } from "../load/outages";
import { fromSnapshot, type LiveSeries, mergePoints, trim } from "../model/liveSeries";

export type FeedState = "connecting" | "live" | "reconnecting" | "stopped";

// Pings come at least every 5 s; three missed ones are a dead connection that nobody closed.
const SILENCE_MAX_MS = 16_000;
const OUTAGE_KEY = "live";

export class LiveFeed {
  state: FeedState = "connecting";
  series = new Map<string, LiveSeries>();
  freshness_ms: number | null = null;
  heard_at_ms = 0;
  /** A snapshot has come: an empty picture then means that there is nothing. */
  answered = false;
  refused: ApiError | null = null;

  private source: EventSource | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watchdog: ReturnType<typeof setInterval> | undefined;
  private failures = 0;
  private closed = false;

  constructor(
    private readonly params: Record<string, string | string[]>,
    private readonly onChange: () => void,
    private readonly onSignedOut: () => void,
  ) {}

  start(): void {
    this.closed = false;
    this.refused = null;
    this.failures = 0;
    this.become("connecting");
    this.connect();
    this.watchdog = setInterval(() => {
      if (this.state === "live" && Date.now() - this.heard_at_ms > SILENCE_MAX_MS)
        this.lost("It has gone silent.", null);
    }, 2000);
  }

  /** Stops for good, or until `start`; the picture stays. */
  stop(): void {
    this.closed = true;
    clearInterval(this.watchdog);
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    clearOutage(OUTAGE_KEY);
    this.become("stopped");
  }

  private become(state: FeedState): void {
    this.state = state;
    this.onChange();
  }

  private connect(): void {
    this.source?.close();
    clearTimeout(this.timer);
    const source = new EventSource(urlOf("/v1/live", this.params));
    this.source = source;
    const on = (event: string, take: (message: LiveMessage) => void) =>
      source.addEventListener(event, (raw) => {
        if (this.source !== source) return;
        let message: LiveMessage;
        try {
          message = JSON.parse((raw as MessageEvent<string>).data) as LiveMessage;
        } catch {
          return; // A message cut by a proxy; the next snapshot heals it.
        }
        take(message);
        this.heard(message);
      });
    on("snapshot", (message) => {
      this.series = fromSnapshot(message.series ?? []);
      this.answered = true;
    });
    on("points", (message) => mergePoints(this.series, message.series ?? []));
    on("ping", () => {});
    source.onerror = () => {
      if (this.source === source) void this.explain();
    };
  }

  private heard(message: LiveMessage): void {
    this.freshness_ms = message.freshness_ms ?? this.freshness_ms;
    this.heard_at_ms = Date.now();
    this.failures = 0;
    trim(this.series, now_ms());
    clearOutage(OUTAGE_KEY);
    this.become("live");
  }

  /** An EventSource does not tell why it failed; the same question asked plainly does. */
  private async explain(): Promise<void> {
    this.source?.close();
    this.source = null;
    if (this.state === "live") this.become("reconnecting");
    const asked = new AbortController();
    const timeout = setTimeout(() => asked.abort(), 8000);
    try {
      const response = await fetch(urlOf("/v1/live", this.params), {
        headers: { Accept: "text/event-stream" },
        credentials: "same-origin",
        signal: asked.signal,
      });
      if (this.closed) return;
      if (response.ok) {
        this.lost("The stream broke off.", 0);
        return;
      }
      const error = problemToError(
        response.status,
        await response.json().catch(() => null),
        retryAfter_ms(response.headers.get("Retry-After"), Date.now()),
      );
      if (error.kind === "signed_out") this.onSignedOut();
      else if (error.retryable) this.lost(error.message, error.retry_after_ms);
      else {
        this.refused = error;
        this.stop();
      }
    } catch {
      if (!this.closed) this.lost("The core can't be reached from this browser.", null);
    } finally {
      clearTimeout(timeout);
      asked.abort();
    }
  }

  private lost(message: string, retry_after_ms: number | null): void {
    if (this.closed) return;
    this.source?.close();
    this.source = null;
    this.failures++;
    const delay_ms = Math.min(10_000, retryDelay_ms(this.failures, null));
    const wait_ms = Math.max(delay_ms, retry_after_ms ?? 0);
    // The first failure is mostly a replica that restarts: the badge says it, a banner would only flicker.
    if (this.failures > 1) {
      reportOutage(OUTAGE_KEY, {
        what: "the live values",
        message,
        retry_at_ms: Date.now() + wait_ms,
        limited: false,
        retry: () => this.connect(),
      });
    }
    this.timer = setTimeout(() => this.connect(), wait_ms);
    this.become("reconnecting");
  }
}
