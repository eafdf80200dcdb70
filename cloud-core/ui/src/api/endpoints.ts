// One function for each route that the page uses.
import { getJson, type Params, request } from "./client";
import type {
  DeadLettersPage,
  DevicesPage,
  Group,
  GroupPage,
  GroupsPage,
  Ledger,
  Metric,
  Overview,
  SeriesPage,
  Session,
} from "./types";

export async function signIn(token: string): Promise<Session> {
  const response = await request("/v1/session", { method: "POST", body: { token } });
  return (await response.json()) as Session;
}

export const currentSession = (signal?: AbortSignal) => getJson<Session>("/v1/session", {}, signal);

export async function signOut(): Promise<void> {
  await request("/v1/session", { method: "DELETE" });
}

export const overview = (signal: AbortSignal) => getJson<Overview>("/v1/overview", {}, signal);

export const devices = (params: Params, signal: AbortSignal) =>
  getJson<DevicesPage>("/v1/devices", params, signal);

export async function fleets(signal: AbortSignal): Promise<string[]> {
  return (await getJson<{ fleets: string[] }>("/v1/fleets", {}, signal)).fleets;
}

export async function metrics(signal: AbortSignal): Promise<Metric[]> {
  return (await getJson<{ metrics: Metric[] }>("/v1/metrics", {}, signal)).metrics;
}

const GROUP_PAGES_MAX = 10;

/** All groups, as far as a list on a page makes sense. */
export async function groups(signal: AbortSignal): Promise<Group[]> {
  const all: Group[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < GROUP_PAGES_MAX; page++) {
    const got: GroupsPage = await getJson<GroupsPage>("/v1/groups", { limit: 1000, cursor }, signal);
    all.push(...got.groups);
    cursor = got.next_cursor;
    if (cursor === null) break;
  }
  return all;
}

export const group = (name: string, params: Params, signal: AbortSignal) =>
  getJson<GroupPage>(`/v1/groups/${encodeURIComponent(name)}`, params, signal);

export const seriesPage = (params: Params, signal: AbortSignal) =>
  getJson<SeriesPage>("/v1/series", params, signal);

export const ledger = (signal: AbortSignal) => getJson<Ledger>("/v1/ledger", {}, signal);

export const deadLetters = (params: Params, signal: AbortSignal) =>
  getJson<DeadLettersPage>("/v1/dead-letters", params, signal);

/** One page of a series as CSV, and where the next one begins. */
export async function seriesCsvPage(
  params: Params,
  signal: AbortSignal,
): Promise<{ csv: string; next: string | null }> {
  const response = await request("/v1/series", { params, signal, accept: "text/csv" });
  return { csv: await response.text(), next: response.headers.get("Next-Cursor") };
}
