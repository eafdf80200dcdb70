// What is being looked at, and the other way to look at it.
import type { ComponentChildren } from "preact";
import { formatRoute, historyOf, liveOf, type Target, targetName } from "../model/route";
import { Icon } from "../shell/Icon";

const KIND = { device: "Device", group: "Group", fleet: "Fleet" } as const;
const ICON = { device: "device", group: "groups", fleet: "fleet" } as const;

interface TargetBarProps {
  target: Target;
  view: "live" | "history";
  metric: string | null;
  children?: ComponentChildren;
}

function Where({ target }: { target: Target }) {
  if (target.kind === "device") {
    const fleet = { kind: "fleet", fleet: target.fleet } as const;
    return (
      <>
        {KIND.device} in fleet <a href={formatRoute(liveOf(fleet))}>{target.fleet}</a>
      </>
    );
  }
  const list = formatRoute({
    view: "groups",
    group: target.kind === "group" ? target.group : null,
    fleet: target.kind === "fleet" ? target.fleet : null,
  });
  return (
    <>
      {KIND[target.kind]}, <a href={list}>its devices</a>
    </>
  );
}

export function TargetBar({ target, view, metric, children }: TargetBarProps) {
  return (
    <div class="target-bar">
      <span class="target-icon">
        <Icon name={ICON[target.kind]} />
      </span>
      <div class="target-name">
        <h1 data-testid="target">{targetName(target)}</h1>
        <p>
          <Where target={target} />
        </p>
      </div>
      <div class="target-tools">
        {children}
        {view === "live" ? (
          <a class="button" href={formatRoute(historyOf(target, metric))} data-testid="to-history">
            <Icon name="history" />
            History
          </a>
        ) : (
          <a class="button" href={formatRoute(liveOf(target))} data-testid="to-live">
            <Icon name="live" />
            Live
          </a>
        )}
      </div>
    </div>
  );
}
