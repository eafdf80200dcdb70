import type { Gateway } from "../api/types";
import { bytes, count, duration } from "../model/format";
import { gatewayHealth, spoolShare, worstFirst } from "../model/health";
import { Icon } from "../shell/Icon";
import { Card, Unavailable } from "./Card";

function Spool({ gateway }: { gateway: Gateway }) {
  const share = spoolShare(gateway);
  const { level } = gatewayHealth(gateway);
  return (
    <div class="spool">
      <span class={`meter ${level}`} aria-hidden="true">
        <span style={{ width: `${(share ?? 0) * 100}%` }} />
      </span>
      <span>
        {bytes(gateway.spool_bytes)} <small>of {bytes(gateway.spool_bytes_max)}</small>
      </span>
    </div>
  );
}

function Row({ gateway }: { gateway: Gateway }) {
  const health = gatewayHealth(gateway);
  return (
    <tr data-testid="gateway-row" data-level={health.level}>
      <th scope="row">
        {gateway.gateway}
        {health.text && <small>{health.text}</small>}
      </th>
      <td data-label="State">
        <span class={`badge level-${health.level}`}>
          <span class={`dot ${health.level}`} />
          {health.title}
        </span>
      </td>
      <td data-label="Waiting events" class="num">
        {count(gateway.spool_pending)}
      </td>
      <td data-label="Spool">
        <Spool gateway={gateway} />
      </td>
      <td data-label="Oldest waiting" class="num">
        {gateway.oldest_age_s === null ? "–" : duration(gateway.oldest_age_s * 1000)}
      </td>
      <td data-label="Last status" class="num">
        {gateway.status_age_s === null ? "never" : `${duration(gateway.status_age_s * 1000)} ago`}
      </td>
    </tr>
  );
}

export function Gateways({ gateways, problem }: { gateways: Gateway[] | null; problem: string | null }) {
  const sorted = worstFirst(gateways ?? []);
  const troubled = sorted.filter((gateway) => gatewayHealth(gateway).level !== "good").length;
  return (
    <Card
      title="Gateways"
      testid="overview-gateways"
      level="none"
      wide="full"
      aside={
        gateways && gateways.length > 0 ? (
          <span class={troubled ? "badge level-warn" : "badge level-good"}>
            {troubled ? `${troubled} of ${gateways.length} need a look` : `All ${gateways.length} are well`}
          </span>
        ) : null
      }
    >
      {gateways === null ? (
        <Unavailable problem={problem} />
      ) : sorted.length === 0 ? (
        <p class="all-well">
          <Icon name="help" /> No gateway has reported yet. A gateway appears here with its first status,
          seconds after it reaches the bus.
        </p>
      ) : (
        <table class="gateways">
          <thead>
            <tr>
              <th scope="col">Gateway</th>
              <th scope="col">State</th>
              <th scope="col" class="num">
                Waiting events
              </th>
              <th scope="col">Spool</th>
              <th scope="col" class="num">
                Oldest waiting
              </th>
              <th scope="col" class="num">
                Last status
              </th>
            </tr>
          </thead>
          <tbody>
            {sorted.map((gateway) => (
              <Row key={gateway.gateway} gateway={gateway} />
            ))}
          </tbody>
        </table>
      )}
    </Card>
  );
}
