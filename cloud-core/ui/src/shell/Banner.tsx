// One line that says what is wrong, since when, and that it is tried again. What was loaded before stays visible.

import { outages, worstOutage } from "../load/outages";
import { useStore } from "../load/store";
import { useTick } from "../load/useLoad";
import { clockTime } from "../model/format";
import { Icon } from "./Icon";

export function Banner() {
  const all = useStore(outages);
  const now_ms = useTick(1000);
  const worst = worstOutage(all);
  if (!worst) return <div role="status" class="visually-hidden" />;
  const left_s =
    worst.retry_at_ms === null ? null : Math.max(0, Math.ceil((worst.retry_at_ms - now_ms) / 1000));
  const others = all.size - 1;
  return (
    <div class={worst.limited ? "banner mild" : "banner"} role="status" data-testid="banner">
      <Icon name="warn" />
      <p>
        <b>
          {worst.limited ? "Slowed down: " : "Can't update "}
          {worst.what}
          {others > 0 && !worst.limited ? ` and ${others} more` : ""}
          {worst.limited ? " waits." : "."}
        </b>{" "}
        {worst.message} Since {clockTime(worst.since_ms)}; what you see may be older.
        {/* A countdown that is read aloud every second helps nobody. */}
        <span aria-hidden="true" class="banner-retry">
          {left_s === null
            ? " It is tried again by itself."
            : left_s === 0
              ? " Trying now…"
              : ` Next try in ${left_s} s.`}
        </span>
      </p>
      {worst.retry && (
        <button type="button" class="button small" onClick={worst.retry}>
          Try now
        </button>
      )}
    </div>
  );
}
