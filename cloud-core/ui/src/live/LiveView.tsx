import { useEffect, useRef, useState } from "preact/hooks";
import { now_ms } from "../api/clock";
import * as api from "../api/endpoints";
import { useLoad } from "../load/useLoad";
import { duration } from "../model/format";
import { type FreshnessLevel, freshness, panelsOf } from "../model/liveSeries";
import { formatRoute, historyOf, liveOf, type Target } from "../model/route";
import { Icon } from "../shell/Icon";
import { isPressing, isTyping } from "../shell/keys";
import { go } from "../shell/router";
import { Empty, Failed, Loading } from "../shell/states";
import { Picker } from "../target/Picker";
import { TargetBar } from "../target/TargetBar";
import type { FeedState, LiveFeed } from "./feed";
import { LivePanel } from "./LivePanel";
import { useLiveFeed } from "./useLiveFeed";

const STATE_TEXT: Record<FeedState, string> = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  stopped: "Stopped",
};

const FRESH_TITLE: Record<FreshnessLevel, string> = {
  good: "From the gateway's forwarding to this page",
  slow: "Slower than usual; up to 30 s is promised",
  late: "Older than the promised 30 s",
  unknown: "How old the values are is not known yet",
};

function FeedBadge({ feed }: { feed: LiveFeed }) {
  const silent_ms = feed.heard_at_ms === 0 ? 0 : Date.now() - feed.heard_at_ms;
  // While it is connected a pause up to the next ping means nothing; without a connection every second counts.
  const fresh = freshness(feed.freshness_ms, silent_ms, feed.state === "live" ? 6000 : 0);
  return (
    <div class="badges">
      <span
        class={`badge state-${feed.state}`}
        role="status"
        data-testid="live-state"
        data-state={feed.state}
      >
        <span class="pulse" aria-hidden="true" />
        {STATE_TEXT[feed.state]}
      </span>
      {fresh.ms !== null && (
        <span
          class={`badge fresh-${fresh.level}`}
          title={FRESH_TITLE[fresh.level]}
          data-testid="freshness"
          data-ms={Math.round(fresh.ms)}
        >
          {duration(fresh.ms)} behind
        </span>
      )}
    </div>
  );
}

/** A replica that restarts is back by then. */
const DIM_AFTER_MS = 4000;

interface LiveProps {
  target: Target;
  metric: string | null;
}

function Panels({ feed, target, metric, at_ms }: LiveProps & { feed: LiveFeed; at_ms: number }) {
  const about = useLoad("metrics", "the list of metrics", api.metrics);
  const all = panelsOf(feed.series);
  const shown = metric === null ? all : all.filter((panel) => panel.metric === metric);
  const dim = feed.state === "reconnecting" && Date.now() - feed.heard_at_ms > DIM_AFTER_MS;
  if (feed.refused) return <Failed error={feed.refused} onRetry={() => feed.start()} />;
  if (!feed.answered) return <Loading what="the last five minutes" />;
  if (shown.length === 0) {
    return (
      <Empty icon="live" title="Nothing in the last five minutes">
        <p>
          {metric !== null && all.length > 0
            ? `${metric} was not sent. Other metrics were.`
            : "No event has come in. Values appear here by themselves as soon as one does."}
        </p>
        <p>
          {metric !== null && all.length > 0 ? (
            <a href={formatRoute(liveOf(target))}>Show all metrics</a>
          ) : (
            <a href={formatRoute(historyOf(target, metric))}>Look at its history</a>
          )}
        </p>
      </Empty>
    );
  }
  return (
    <>
      {metric !== null && (
        <p class="filter-note">
          Only {metric}. <a href={formatRoute(liveOf(target))}>Show all metrics</a>
        </p>
      )}
      <div
        class={[
          "live-grid",
          shown.length === 1 && "single",
          (shown.length === 2 || shown.length === 4) && "by-two",
          dim && "stale",
        ]
          .filter(Boolean)
          .join(" ")}
      >
        {shown.map((panel) => (
          <LivePanel
            key={panel.metric}
            panel={panel}
            about={about.data?.find((one) => one.name === panel.metric) ?? null}
            now_ms={at_ms}
            height_px={shown.length === 1 ? 340 : shown.length <= 4 ? 220 : 170}
            historyHref={formatRoute(historyOf(target, panel.metric))}
            onPick={({ fleet, device }) => device && go(liveOf({ kind: "device", fleet, device }))}
          />
        ))}
      </div>
    </>
  );
}

function Live({ target, metric }: LiveProps) {
  const [byDevice, setByDevice] = useState(false);
  const feed = useLiveFeed(target, target.kind !== "device" && !byDevice);
  // While stopped the picture stands still, whatever else draws it.
  const still = useRef(now_ms());
  if (feed?.state !== "stopped") still.current = now_ms();

  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.key !== " " || isTyping(event) || isPressing(event) || !feed) return;
      if (feed.state === "stopped") feed.start();
      else feed.stop();
      event.preventDefault();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, [feed]);

  return (
    <>
      <TargetBar target={target} view="live" metric={metric}>
        {feed && !feed.refused && <FeedBadge feed={feed} />}
        {target.kind === "group" && !feed?.refused && (
          <fieldset class="segmented" aria-label="Lines">
            <button type="button" aria-pressed={!byDevice} onClick={() => setByDevice(false)}>
              Average
            </button>
            <button
              type="button"
              aria-pressed={byDevice}
              onClick={() => setByDevice(true)}
              data-testid="by-device"
            >
              Each device
            </button>
          </fieldset>
        )}
        {feed && !feed.refused && (
          <button
            type="button"
            class="button"
            onClick={() => (feed.state === "stopped" ? feed.start() : feed.stop())}
            title="Space"
            data-testid="live-toggle"
          >
            <Icon name={feed.state === "stopped" ? "play" : "pause"} />
            {feed.state === "stopped" ? "Go on" : "Stop"}
          </button>
        )}
      </TargetBar>
      {feed ? (
        <Panels feed={feed} target={target} metric={metric} at_ms={still.current} />
      ) : (
        <Loading what="the last five minutes" />
      )}
    </>
  );
}

export function LiveView({ target, metric }: { target: Target | null; metric: string | null }) {
  if (!target) return <Picker view="live" />;
  return <Live key={JSON.stringify(target)} target={target} metric={metric} />;
}
