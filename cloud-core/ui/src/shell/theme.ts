// Light or dark: the system's choice unless the person chose. The choice is no secret and may be stored.
import { Store } from "../load/store";

export type Theme = "system" | "light" | "dark";

const KEY = "penstock.theme";

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}

export const theme = new Store<Theme>(stored());
/** Counts every change of colours, also those of the system: charts draw again by it. */
export const palette = new Store<number>(0);

const system = matchMedia("(prefers-color-scheme: dark)");

function apply(): void {
  const chosen = theme.get();
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  palette.set(palette.get() + 1);
}

export function startTheme(): void {
  apply();
  system.addEventListener("change", apply);
  theme.watch(apply);
}

export function isDark(): boolean {
  return theme.get() === "dark" || (theme.get() === "system" && system.matches);
}

export function toggleTheme(): void {
  const next: Theme = isDark() ? "light" : "dark";
  const same = (next === "dark") === system.matches;
  // Back to what the system says means following it again.
  const chosen = same ? "system" : next;
  try {
    if (chosen === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // Private windows may refuse; the choice then lasts as long as the page.
  }
  theme.set(chosen);
}
