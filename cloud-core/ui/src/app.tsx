import { useEffect, useState } from "preact/hooks";
import { GroupsView } from "./groups/GroupsView";
import { HistoryView } from "./history/HistoryView";
import { LiveView } from "./live/LiveView";
import { useStore } from "./load/store";
import { useTick } from "./load/useLoad";
import { switchView, targetName } from "./model/route";
import { OverviewView } from "./overview/OverviewView";
import { Login } from "./session/Login";
import { resume, session } from "./session/session";
import { Banner } from "./shell/Banner";
import { Header, viewOfKey } from "./shell/Header";
import { Help } from "./shell/Help";
import { isTyping } from "./shell/keys";
import { go, route } from "./shell/router";
import { Loading } from "./shell/states";
import { toggleTheme } from "./shell/theme";

const VIEW_TITLE = { overview: "Overview", live: "Live", history: "History", groups: "Groups" };

function View() {
  const now = useStore(route);
  useEffect(() => {
    const target = now.view === "live" || now.view === "history" ? now.target : null;
    document.title = [target && targetName(target), VIEW_TITLE[now.view], "Penstock"]
      .filter(Boolean)
      .join(" · ");
  }, [now]);
  switch (now.view) {
    case "overview":
      return <OverviewView reason={now.reason} />;
    case "live":
      return <LiveView target={now.target} metric={now.metric} />;
    case "history":
      return <HistoryView route={now} />;
    case "groups":
      return <GroupsView group={now.group} fleet={now.fleet} />;
  }
}

function Unreachable({ message }: { message: string }) {
  useTick(1000);
  useEffect(() => {
    const timer = setInterval(() => void resume(), 5000);
    return () => clearInterval(timer);
  }, []);
  return (
    <main class="login">
      <div class="login-card" role="alert" data-testid="unreachable">
        <h1>No connection</h1>
        <p>{message}</p>
        <p>It is tried again every 5 s. If it stays like this, ask whoever runs the core.</p>
        <button type="button" class="button primary wide" onClick={() => void resume()}>
          Try now
        </button>
      </div>
    </main>
  );
}

export function App() {
  const who = useStore(session);
  const [help, setHelp] = useState(false);

  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      if (isTyping(event) || session.get().kind !== "in") return;
      const view = viewOfKey(event.key);
      if (event.key === "/") document.getElementById("search")?.focus();
      else if (event.key === "?") setHelp(true);
      else if (event.key === "t") toggleTheme();
      else if (view) go(switchView(route.get(), view));
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, []);

  if (who.kind === "asking") return <Loading what="the dashboard" />;
  if (who.kind === "unreachable") return <Unreachable message={who.message} />;
  if (who.kind === "out") return <Login ended={who.ended} />;
  return (
    <>
      {/* A button, not a link: a hash is a route here. */}
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>
        Skip to the content
      </button>
      <Header onHelp={() => setHelp(true)} />
      <Banner />
      <main id="main" tabIndex={-1}>
        <View />
      </main>
      {help && <Help onClose={() => setHelp(false)} />}
    </>
  );
}
