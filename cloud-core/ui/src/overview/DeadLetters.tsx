import type { DeadLetterCounts } from "../api/types";
import { count, words } from "../model/format";
import { formatRoute } from "../model/route";
import { Icon } from "../shell/Icon";
import { Card, Unavailable } from "./Card";

const REASONS_MAX = 8;

export function DeadLetters({
  letters,
  problem,
}: {
  letters: DeadLetterCounts | null;
  problem: string | null;
}) {
  if (!letters) {
    return (
      <Card title="Dead letters" testid="overview-dead-letters" level="none" wide="half">
        <Unavailable problem={problem} />
      </Card>
    );
  }
  const sorted = [...letters.by_reason].sort((a, b) => b.count - a.count);
  const top = Math.max(1, sorted[0]?.count ?? 1);
  return (
    <Card
      title="Dead letters"
      testid="overview-dead-letters"
      level="none"
      wide="half"
      aside={<span class="badge">{count(letters.open)} open</span>}
    >
      {sorted.length === 0 ? (
        <p class="all-well">
          <Icon name="check" /> Nothing was refused.
        </p>
      ) : (
        <ul class="bars">
          {sorted.slice(0, REASONS_MAX).map((one) => (
            <li key={one.reason}>
              <a
                href={formatRoute({ view: "overview", reason: one.reason })}
                data-testid="dead-letter-reason"
              >
                <span class="bar-name">{words(one.reason)}</span>
                <span class="bar-count">{count(one.count)}</span>
                <span class="bar" aria-hidden="true">
                  <span style={{ width: `${Math.max(0.5, (one.count / top) * 100)}%` }} />
                </span>
              </a>
            </li>
          ))}
          {sorted.length > REASONS_MAX && (
            <li class="muted">and {sorted.length - REASONS_MAX} more reasons</li>
          )}
        </ul>
      )}
    </Card>
  );
}
