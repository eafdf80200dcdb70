// The route lives in the address, and only there.
import { Store } from "../load/store";
import { formatRoute, parseRoute, type Route } from "../model/route";

export const route = new Store<Route>(parseRoute(location.hash));

function read(): void {
  route.set(parseRoute(location.hash));
}

// popstate fires for back and forward as well as for a hash that somebody typed.
window.addEventListener("popstate", read);

/** `replace`: the step is not worth a press of the back button, as while the wheel turns. */
export function go(to: Route, replace = false): void {
  const hash = formatRoute(to);
  if (hash === location.hash) return;
  if (replace) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  read();
}
