// Find a device, group or fleet by typing. A combobox after the ARIA pattern: the focus stays in the field.
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api/endpoints";
import { sentenceOf } from "../api/errors";
import type { Device, Group } from "../api/types";
import { historyOf, liveOf } from "../model/route";
import { type Hit, hits, matchAt, step } from "../model/search";
import { Icon } from "./Icon";
import { go, route } from "./router";

const DEBOUNCE_MS = 150;
const DEVICES_MAX = 8;

function Marked({ name, text }: { name: string; text: string }) {
  const at = matchAt(name, text);
  if (!at) return <>{name}</>;
  return (
    <>
      {name.slice(0, at[0])}
      <mark>{name.slice(...at)}</mark>
      {name.slice(at[1])}
    </>
  );
}

const ICON_OF = { device: "device", group: "groups", fleet: "fleet" } as const;

export function SearchBox() {
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState("");
  const [open, setOpen] = useState(false);
  const [chosen, setChosen] = useState(0);
  const [devices, setDevices] = useState<Device[]>([]);
  const [named, setNamed] = useState<{ groups: Group[]; fleets: string[] }>({ groups: [], fleets: [] });
  const [asked, setAsked] = useState<string | null>(null);
  const [error, setError] = useState<string | null>(null);
  const query = text.trim();

  useEffect(() => {
    if (query === "") {
      setDevices([]);
      setAsked(null);
      return;
    }
    const controller = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const page = await api.devices({ q: query, limit: DEVICES_MAX }, controller.signal);
        setDevices(page.devices);
        setError(null);
        setChosen(0);
      } catch (caught) {
        if (controller.signal.aborted) return;
        setDevices([]);
        setError(sentenceOf(caught));
      }
      setAsked(query);
    }, DEBOUNCE_MS);
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [query]);

  // Groups and fleets are few and change rarely: fetched when somebody begins to search.
  const prepare = () => {
    setOpen(true);
    const { signal } = new AbortController();
    Promise.all([api.groups(signal), api.fleets(signal)]).then(
      ([groups, fleets]) => setNamed({ groups, fleets }),
      () => {}, // Devices are still found; the next focus tries again.
    );
  };

  const found = query === "" ? [] : hits(query, devices, named.groups, named.fleets);
  const current = Math.min(chosen, found.length - 1);
  const show = open && query !== "";

  const choose = (hit: Hit) => {
    go(route.get().view === "history" ? historyOf(hit.target) : liveOf(hit.target));
    setText("");
    setOpen(false);
    input.current?.blur();
  };

  const onKeyDown = (event: KeyboardEvent) => {
    const hit = found[current];
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      setChosen(step(current, event.key === "ArrowDown" ? 1 : -1, found.length));
      event.preventDefault();
    } else if (event.key === "Enter" && hit) {
      choose(hit);
      event.preventDefault();
    } else if (event.key === "Escape") {
      if (text) setText("");
      else input.current?.blur();
      event.stopPropagation();
    }
  };

  return (
    <search class="search">
      <Icon name="search" />
      <input
        ref={input}
        id="search"
        type="text"
        inputMode="search"
        role="combobox"
        aria-label="Find a device, group or fleet"
        aria-expanded={show}
        aria-controls="search-list"
        aria-autocomplete="list"
        aria-activedescendant={show && current >= 0 ? `hit-${current}` : undefined}
        placeholder="Find a device or group"
        autoComplete="off"
        spellcheck={false}
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setOpen(true);
        }}
        onFocus={prepare}
        onBlur={() => setOpen(false)}
        onKeyDown={onKeyDown}
        data-testid="search"
      />
      <kbd>/</kbd>
      {show && (
        <div class="search-pop">
          <div id="search-list" role="listbox" aria-label="Found">
            {found.map((hit, i) => (
              // biome-ignore lint/a11y/useKeyWithClickEvents: the field has the keys
              // biome-ignore lint/a11y/useFocusableInteractive: the focus stays in the field
              <div
                key={`${hit.target.kind}/${hit.detail}/${hit.title}`}
                id={`hit-${i}`}
                role="option"
                class="hit"
                aria-selected={i === current}
                // The field would lose the focus, and the list close, before the click.
                onMouseDown={(event) => event.preventDefault()}
                onMouseMove={() => setChosen(i)}
                onClick={() => choose(hit)}
                data-testid="search-result"
              >
                <Icon name={ICON_OF[hit.target.kind]} />
                <span class="hit-name">
                  <Marked name={hit.title} text={query} />
                </span>
                <small>{hit.detail}</small>
                {hit.target.kind === "device" && (
                  <span
                    class={hit.last_seen ? "dot good" : "dot none"}
                    title={hit.last_seen ? "Live" : "Nothing in the last 5 minutes"}
                  />
                )}
              </div>
            ))}
          </div>
          <p class="search-note" role="status">
            {error ??
              (asked !== query
                ? "Searching…"
                : found.length === 0
                  ? `Nothing is called “${query}”. Any part of a name will do.`
                  : devices.length === DEVICES_MAX
                    ? "The first few. Type more of the name to narrow it down."
                    : null)}
          </p>
        </div>
      )}
    </search>
  );
}
