// The devices of a group or fleet, page by page.
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api/endpoints";
import { ApiError, sentenceOf } from "../api/errors";
import { count } from "../model/format";
import { formatRoute, historyOf, liveOf, type Target, targetName } from "../model/route";
import { Icon } from "../shell/Icon";
import { Empty, Failed, Loading } from "../shell/states";

const PAGE = 100;

interface Member {
  fleet: string;
  device: string;
}

async function page(target: Target, cursor: string | null, signal: AbortSignal) {
  if (target.kind === "group") return api.group(target.group, { limit: PAGE, cursor }, signal);
  return api.devices({ fleet: target.fleet, limit: PAGE, cursor }, signal);
}

export function Members({ target }: { target: Target }) {
  const [members, setMembers] = useState<Member[] | null>(null);
  const [cursor, setCursor] = useState<string | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const alive = useRef(new AbortController());

  const more = async (from: string | null) => {
    setError(null);
    try {
      const got = await page(target, from, alive.current.signal);
      setMembers((before) => [...(from === null ? [] : (before ?? [])), ...got.devices]);
      setCursor(got.next_cursor);
    } catch (caught) {
      if (alive.current.signal.aborted) return;
      setError(caught instanceof ApiError ? caught : new ApiError("unavailable", 0, sentenceOf(caught)));
    }
  };

  useEffect(() => {
    void more(null);
    return () => alive.current.abort();
  }, []);

  return (
    <>
      <div class="title-bar">
        <a class="back" href="#/groups" aria-label="Back to the groups">
          <Icon name="left" />
        </a>
        <h1>{targetName(target)}</h1>
        <span class="row-actions">
          <a class="button" href={formatRoute(liveOf(target))} data-testid="open-live">
            <Icon name="live" /> Live
          </a>
          <a class="button" href={formatRoute(historyOf(target))} data-testid="open-history">
            <Icon name="history" /> History
          </a>
        </span>
      </div>
      {!members && !error && <Loading what="its devices" />}
      {members?.length === 0 && (
        <Empty icon="device" title="No devices">
          <p>Nothing is in here at the moment.</p>
        </Empty>
      )}
      {members && members.length > 0 && (
        <section class="card list-card">
          <h2>
            Devices{" "}
            <small>
              {count(members.length)}
              {cursor === null ? "" : " so far"}
            </small>
          </h2>
          <ul class="rows">
            {members.map((member) => {
              const device: Target = { kind: "device", fleet: member.fleet, device: member.device };
              return (
                <li key={`${member.fleet}/${member.device}`} data-testid="member">
                  <Icon name="device" />
                  <a class="row-name" href={formatRoute(liveOf(device))}>
                    {member.device}
                  </a>
                  {target.kind === "group" && <small>{member.fleet}</small>}
                  <span class="row-actions">
                    <a class="button small" href={formatRoute(historyOf(device))}>
                      History
                    </a>
                  </span>
                </li>
              );
            })}
          </ul>
        </section>
      )}
      {error && <Failed error={error} onRetry={() => void more(cursor)} />}
      {cursor !== null && !error && (
        <button type="button" class="button wide" onClick={() => void more(cursor)} data-testid="more">
          Show more
        </button>
      )}
    </>
  );
}
