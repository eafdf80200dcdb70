import { sentenceOf } from "../api/errors";
import { clearOutage, reportOutage } from "../load/outages";
import { useStore } from "../load/store";
import { formatRoute, switchView, type View } from "../model/route";
import { session, signOut } from "../session/session";
import { Icon, type IconName, Logo } from "./Icon";
import { route } from "./router";
import { SearchBox } from "./SearchBox";
import { isDark, palette, toggleTheme } from "./theme";

const TABS: { view: View; label: string; icon: IconName; key: string }[] = [
  { view: "overview", label: "Overview", icon: "overview", key: "1" },
  { view: "live", label: "Live", icon: "live", key: "2" },
  { view: "history", label: "History", icon: "history", key: "3" },
  { view: "groups", label: "Groups", icon: "groups", key: "4" },
];

export function viewOfKey(key: string): View | null {
  return TABS.find((tab) => tab.key === key)?.view ?? null;
}

async function leave(): Promise<void> {
  try {
    await signOut();
  } catch (error) {
    reportOutage("sign-out", {
      what: "the session: you are still signed in",
      message: sentenceOf(error),
      retry_at_ms: null,
      limited: false,
      retry: () => void leave(),
    });
    return;
  }
  clearOutage("sign-out");
}

export function Header({ onHelp }: { onHelp: () => void }) {
  const now = useStore(route);
  const who = useStore(session);
  useStore(palette);
  const dark = isDark();
  return (
    <header class="top">
      <a class="brand" href="#/overview" aria-label="Penstock, overview">
        <Logo />
        <span>Penstock</span>
      </a>
      <nav class="tabs" aria-label="Views">
        {TABS.map((tab) => (
          <a
            key={tab.view}
            href={formatRoute(switchView(now, tab.view))}
            aria-current={now.view === tab.view ? "page" : undefined}
            data-testid={`tab-${tab.view}`}
          >
            <Icon name={tab.icon} />
            <span>{tab.label}</span>
          </a>
        ))}
      </nav>
      <SearchBox />
      <div class="top-actions">
        <button
          type="button"
          class="icon-button"
          onClick={toggleTheme}
          aria-label={dark ? "Use light colours" : "Use dark colours"}
          title={dark ? "Light colours (t)" : "Dark colours (t)"}
          data-testid="theme"
        >
          <Icon name={dark ? "sun" : "moon"} />
        </button>
        <button
          type="button"
          class="icon-button wide-only"
          onClick={onHelp}
          aria-label="Keyboard shortcuts"
          title="Keyboard shortcuts (?)"
          data-testid="help"
        >
          <Icon name="help" />
        </button>
        {who.kind === "in" && (
          <span
            class="who wide-only"
            title={who.session.expires_at ? `Until ${who.session.expires_at}` : undefined}
          >
            <b>{who.session.name}</b>
            <small>{who.session.role}</small>
          </span>
        )}
        <button
          type="button"
          class="icon-button"
          onClick={() => void leave()}
          aria-label="Sign out"
          title="Sign out"
          data-testid="sign-out"
        >
          <Icon name="out" />
        </button>
      </div>
    </header>
  );
}
