// Nothing chosen yet: what there is to look at.
import * as api from "../api/endpoints";
import { useLoad } from "../load/useLoad";
import { count } from "../model/format";
import { formatRoute, historyOf, liveOf, type Target } from "../model/route";
import { Icon } from "../shell/Icon";
import { Empty, Failed, Loading } from "../shell/states";

const DEVICES_SHOWN = 24;

export function Picker({ view }: { view: "live" | "history" }) {
  const href = (target: Target) => formatRoute(view === "live" ? liveOf(target) : historyOf(target));
  const found = useLoad("picker", "the list of devices", async (signal) => {
    const [fleets, groups, page] = await Promise.all([
      api.fleets(signal),
      api.groups(signal),
      api.devices({ limit: DEVICES_SHOWN }, signal),
    ]);
    return { fleets, groups, devices: page.devices, more: page.next_cursor !== null };
  });
  if (!found.data)
    return found.error ? <Failed error={found.error} onRetry={found.reload} /> : <Loading what="devices" />;
  const { fleets, groups, devices, more } = found.data;
  if (fleets.length === 0 && devices.length === 0) {
    return (
      <Empty icon="device" title="No device has sent anything yet">
        <p>
          Devices appear here with their first event. Point one at its gateway: <code>POST /v1/events</code>{" "}
          with the key of its fleet.
        </p>
      </Empty>
    );
  }
  return (
    <div class="picker" data-testid="picker">
      <h1>{view === "live" ? "What do you want to watch?" : "Whose history?"}</h1>
      <p class="lead">
        Choose below, or press <kbd>/</kbd> and type any part of a name.
      </p>
      <h2>Fleets</h2>
      <div class="tiles">
        {fleets.map((fleet) => (
          <a class="tile" key={fleet} href={href({ kind: "fleet", fleet })}>
            <Icon name="fleet" />
            <b>{fleet}</b>
            <small>Whole fleet</small>
          </a>
        ))}
      </div>
      {groups.length > 0 && (
        <>
          <h2>Groups</h2>
          <div class="tiles">
            {groups.slice(0, DEVICES_SHOWN).map((group) => (
              <a class="tile" key={group.name} href={href({ kind: "group", group: group.name })}>
                <Icon name="groups" />
                <b>{group.name}</b>
                <small>{count(group.devices)} devices</small>
              </a>
            ))}
          </div>
        </>
      )}
      <h2>Devices</h2>
      <div class="tiles">
        {devices.map((device) => (
          <a
            class="tile"
            key={`${device.fleet}/${device.device}`}
            href={href({ kind: "device", fleet: device.fleet, device: device.device })}
          >
            <span class={device.last_seen ? "dot good" : "dot none"} />
            <b>{device.device}</b>
            <small>{device.fleet}</small>
          </a>
        ))}
      </div>
      {more && <p class="muted">There are more. Search finds them all.</p>}
    </div>
  );
}
