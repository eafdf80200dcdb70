// The ledger in plain words: is every event that a gateway received accounted for?
import * as api from "../api/endpoints";
import type { OverviewLedger } from "../api/types";
import { useLoad } from "../load/useLoad";
import { count, shortCount } from "../model/format";
import { ledgerVerdict } from "../model/health";
import { Icon } from "../shell/Icon";
import { Card, Unavailable } from "./Card";

const PARTS = [
  ["stored", "Stored"],
  ["duplicates", "Duplicates"],
  ["dead_lettered", "Dead letters"],
  ["in_flight", "In flight"],
  ["not_kept", "Not kept"],
  ["missing", "Missing"],
  ["damaged", "Damaged"],
] as const;

/** Which numbers are missing, by gateway: only analysts may read that, and only when there is something to read. */
function MissingRanges() {
  const ledger = useLoad("ledger", "the ledger's ranges", api.ledger, 30_000);
  if (ledger.error && !ledger.data) {
    return (
      <p class="note">
        {ledger.error.kind === "forbidden"
          ? "Which ones they are can be seen with the role analyst."
          : ledger.error.message}
      </p>
    );
  }
  const ranges = (ledger.data?.gateways ?? []).flatMap((gateway) =>
    [...gateway.missing_ranges, ...gateway.damaged_ranges].map((range) => ({
      gateway: gateway.gateway,
      ...range,
    })),
  );
  return (
    <ul class="ranges">
      {ranges.slice(0, 8).map((range) => (
        <li key={`${range.gateway}/${range.epoch}/${range.from_seq}`}>
          <b>{range.gateway}</b> numbers {count(range.from_seq)} to {count(range.to_seq - 1)} of epoch{" "}
          <code>{range.epoch}</code>
        </li>
      ))}
      {ranges.length > 8 && <li>and {count(ranges.length - 8)} more ranges</li>}
    </ul>
  );
}

export function LedgerCard({ ledger, problem }: { ledger: OverviewLedger | null; problem: string | null }) {
  if (!ledger) {
    return (
      <Card title="Ledger" testid="overview-ledger" level="none" wide="half">
        <Unavailable problem={problem} />
      </Card>
    );
  }
  const verdict = ledgerVerdict(ledger);
  return (
    <Card title="Ledger" testid="overview-ledger" level={verdict.level} wide="half">
      <p class={`verdict ${verdict.level}`} role="status" data-verdict={ledger.verdict}>
        <Icon name={verdict.level === "bad" ? "warn" : "check"} />
        {verdict.title}
      </p>
      <p class="note">{verdict.text}</p>
      <div class="stack" aria-hidden="true">
        {PARTS.map(
          ([key]) =>
            ledger[key] > 0 && <span key={key} class={`part-${key}`} style={{ flexGrow: ledger[key] }} />,
        )}
      </div>
      <dl class="stack-legend">
        {PARTS.filter(([key]) => ledger[key] > 0 || (key !== "not_kept" && key !== "damaged")).map(
          ([key, label]) => (
            <div key={key} title={count(ledger[key])}>
              <dt>
                <span class={`key part-${key}`} />
                {label}
              </dt>
              <dd>{shortCount(ledger[key])}</dd>
            </div>
          ),
        )}
      </dl>
      {ledger.verdict === "missing" && <MissingRanges />}
    </Card>
  );
}
