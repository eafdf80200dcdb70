import { useEffect } from "preact/hooks";
import * as api from "../api/endpoints";
import type { Overview } from "../api/types";
import { clearOutage, reportOutage } from "../load/outages";
import { useLoad } from "../load/useLoad";
import { clockTime, count, duration, perSecond, sentence, shortCount } from "../model/format";
import { freshnessLevel, problemOf, problemTexts } from "../model/health";
import { Failed, Loading } from "../shell/states";
import { Card, Unavailable } from "./Card";
import { DeadLetters } from "./DeadLetters";
import { Gateways } from "./Gateways";
import { LedgerCard } from "./LedgerCard";
import { Letters } from "./Letters";
import { type Sample, Sparkline } from "./Sparkline";

const POLL_MS = 2000;
const SAMPLES_MAX = 450; // a quarter of an hour
const PARTS_KEY = "overview/parts";

// The ingest rate since the page was opened, across its views: the core keeps no history of it for the page.
let rates: Sample[] = [];

function remember(data: Overview): Sample[] {
  const at_ms = Date.parse(data.at);
  if (data.ingest_events_per_second !== null && at_ms > (rates.at(-1)?.at_ms ?? 0)) {
    rates = [...rates, { at_ms, value: data.ingest_events_per_second }].slice(-SAMPLES_MAX);
  }
  return rates;
}

/** Parts of which the stores are away: the banner says it too, since a card may be out of sight. */
function useBrokenParts(data: Overview | null): void {
  const message = data ? [...new Set(problemTexts(data.problems).values())].join("; ") : "";
  useEffect(() => {
    if (message === "") clearOutage(PARTS_KEY);
    else {
      reportOutage(PARTS_KEY, {
        what: "a part of the overview",
        message: sentence(message),
        retry_at_ms: null,
        limited: false,
        retry: null,
      });
    }
  }, [message]);
  useEffect(() => () => clearOutage(PARTS_KEY), []);
}

function Ingest({ data }: { data: Overview }) {
  return (
    <Card title="Ingest rate" testid="overview-ingest" level="none">
      {data.ingest_events_per_second === null ? (
        <Unavailable problem={problemOf(data.problems, "ingest_events_per_second")} />
      ) : (
        <>
          <p class="figure">
            {perSecond(data.ingest_events_per_second)} <small>events/s</small>
          </p>
          <Sparkline samples={remember(data)} />
          <p class="note">{data.live_devices === null ? "" : `${count(data.live_devices)} devices live`}</p>
        </>
      )}
    </Card>
  );
}

function FreshnessCard({ data }: { data: Overview }) {
  const fresh = data.freshness;
  return (
    <Card title="Freshness" testid="overview-freshness" level={freshnessLevel(fresh?.total_ms)}>
      {fresh === null ? (
        <Unavailable problem={problemOf(data.problems, "freshness")} />
      ) : (
        <>
          <p class="figure">
            {duration(fresh.total_ms)}{" "}
            <small title="p99 from the bus to here, and the longest wait in a spool">gateway to here</small>
          </p>
          <dl class="pairs">
            <div>
              <dt>p50</dt>
              <dd>{duration(fresh.visible_ms_p50)}</dd>
            </div>
            <div>
              <dt>p99</dt>
              <dd>{duration(fresh.visible_ms_p99)}</dd>
            </div>
            <div>
              <dt>Spool delay</dt>
              <dd>{duration(fresh.spool_delay_ms_max)}</dd>
            </div>
          </dl>
        </>
      )}
    </Card>
  );
}

function Stored({ data }: { data: Overview }) {
  return (
    <Card title="Stored events" testid="overview-stored" level="none">
      {data.stored_rows === null ? (
        <Unavailable problem={problemOf(data.problems, "stored_rows")} />
      ) : (
        <>
          <p class="figure" title={count(data.stored_rows)}>
            {shortCount(data.stored_rows)}
          </p>
          <dl class="pairs">
            <div>
              <dt>To store</dt>
              <dd>{shortCount(data.raw_lag_records)}</dd>
            </div>
            <div>
              <dt>To roll up</dt>
              <dd>{shortCount(data.rollup_lag_records)}</dd>
            </div>
          </dl>
        </>
      )}
    </Card>
  );
}

function Duplicates({ data }: { data: Overview }) {
  return (
    <Card title="Duplicates" testid="overview-duplicates" level="none">
      {data.duplicates === null ? (
        <Unavailable problem={problemOf(data.problems, "duplicates")} />
      ) : (
        <>
          <p class="figure" title={count(data.duplicates)}>
            {shortCount(data.duplicates)}
          </p>
          <p class="note">Recognised and counted once. They change no figure.</p>
        </>
      )}
    </Card>
  );
}

export function OverviewView({ reason }: { reason: string | null }) {
  const { data, error, reload } = useLoad("overview", "the overview", api.overview, POLL_MS);
  useBrokenParts(data);
  if (!data)
    return error ? <Failed error={error} onRetry={reload} /> : <Loading what="the overview" lines={6} />;
  return (
    <div class={error ? "overview stale" : "overview"} data-testid="overview">
      <div class="title-bar">
        <h1>Overview</h1>
        <p class="muted" data-testid="overview-at">
          As of {clockTime(Date.parse(data.at))}
        </p>
      </div>
      <div class="cards">
        <Ingest data={data} />
        <FreshnessCard data={data} />
        <Stored data={data} />
        <Duplicates data={data} />
        <LedgerCard ledger={data.ledger} problem={problemOf(data.problems, "ledger")} />
        <DeadLetters letters={data.dead_letters} problem={problemOf(data.problems, "dead_letters")} />
        <Gateways gateways={data.gateways} problem={problemOf(data.problems, "gateways")} />
      </div>
      {reason !== null && <Letters reason={reason} />}
    </div>
  );
}
