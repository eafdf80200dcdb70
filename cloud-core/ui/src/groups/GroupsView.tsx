import { useState } from "preact/hooks";
import * as api from "../api/endpoints";
import { useLoad } from "../load/useLoad";
import { count } from "../model/format";
import { formatRoute, historyOf, liveOf, type Target } from "../model/route";
import { Icon } from "../shell/Icon";
import { Empty, Failed, Loading } from "../shell/states";
import { Members } from "./Members";

interface Row {
  target: Target;
  name: string;
  detail: string;
}

function List({ title, rows, opens }: { title: string; rows: Row[]; opens: (row: Row) => string }) {
  return (
    <section class="card list-card">
      <h2>
        {title} <small>{count(rows.length)}</small>
      </h2>
      <ul class="rows">
        {rows.map((row) => (
          <li key={row.name} data-testid="group-row">
            <Icon name={row.target.kind === "group" ? "groups" : "fleet"} />
            <a class="row-name" href={opens(row)}>
              {row.name}
            </a>
            <small>{row.detail}</small>
            <span class="row-actions">
              <a class="button small" href={formatRoute(liveOf(row.target))} data-testid="open-live">
                Live
              </a>
              <a class="button small" href={formatRoute(historyOf(row.target))} data-testid="open-history">
                History
              </a>
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Lists() {
  const [text, setText] = useState("");
  const found = useLoad(
    "groups",
    "the groups",
    async (signal) => {
      const [groups, fleets] = await Promise.all([api.groups(signal), api.fleets(signal)]);
      return { groups, fleets };
    },
    60_000,
  );
  if (!found.data)
    return found.error ? <Failed error={found.error} onRetry={found.reload} /> : <Loading what="groups" />;
  const { groups, fleets } = found.data;
  const wanted = text.trim().toLowerCase();
  const shown = groups.filter((group) => group.name.toLowerCase().includes(wanted));
  return (
    <>
      <div class="title-bar">
        <h1>Groups</h1>
        {groups.length > 8 && (
          <input
            type="search"
            class="filter"
            placeholder="Filter"
            aria-label="Filter the groups by name"
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
            data-testid="group-filter"
          />
        )}
      </div>
      {groups.length === 0 ? (
        <Empty icon="groups" title="No groups yet">
          <p>Groups belong to the system that manages your devices. Import a copy of them:</p>
          <pre>
            <code>cloud-core groups import groups.csv</code>
          </pre>
          <p>
            The file has the heading <code>group,fleet,device</code>. The other system may also{" "}
            <code>PUT /v1/groups</code> by itself.
          </p>
        </Empty>
      ) : shown.length === 0 ? (
        <p class="muted">No group has “{text.trim()}” in its name.</p>
      ) : (
        <List
          title="Groups"
          rows={shown.map((group) => ({
            target: { kind: "group", group: group.name },
            name: group.name,
            detail: `${count(group.devices)} ${group.devices === 1 ? "device" : "devices"}`,
          }))}
          opens={(row) => formatRoute({ view: "groups", group: row.name, fleet: null })}
        />
      )}
      {wanted === "" && fleets.length > 0 && (
        <List
          title="Fleets"
          rows={fleets.map((fleet) => ({
            target: { kind: "fleet", fleet },
            name: fleet,
            detail: "Whole fleet",
          }))}
          opens={(row) => formatRoute({ view: "groups", group: null, fleet: row.name })}
        />
      )}
    </>
  );
}

export function GroupsView({ group, fleet }: { group: string | null; fleet: string | null }) {
  if (group !== null) return <Members key={`g/${group}`} target={{ kind: "group", group }} />;
  if (fleet !== null) return <Members key={`f/${fleet}`} target={{ kind: "fleet", fleet }} />;
  return <Lists />;
}
