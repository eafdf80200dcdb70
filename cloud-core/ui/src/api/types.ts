// The serving API as docs/contracts/serving.md promises it. Nothing here that the contract does not say.

export type Role = "viewer" | "analyst" | "admin";

export interface Session {
  name: string;
  role: Role;
  expires_at: string | null;
}

export interface Device {
  fleet: string;
  device: string;
  metrics: string[];
  last_seen: string | null;
}

export interface DevicesPage {
  devices: Device[];
  next_cursor: string | null;
}

export interface Metric {
  name: string;
  description: string;
  /** Of its values, as the schema says it; null when it says none. */
  unit?: string | null;
  deprecated: boolean;
  since_schema: number;
}

export interface Group {
  name: string;
  devices: number;
}

export interface GroupsPage {
  groups: Group[];
  next_cursor: string | null;
}

export interface GroupPage {
  name: string;
  devices: { fleet: string; device: string }[];
  next_cursor: string | null;
}

export type Resolution = "1m" | "1h" | "1d";

export interface SeriesPoint {
  at: string;
  count: number;
  avg: number;
  min: number;
  max: number;
  p50: number;
  p95: number;
  sum: number;
  revision: number;
  provisional: boolean;
}

export interface Gap {
  from: string;
  to: string;
}

export interface SeriesPage {
  fleet: string | null;
  device: string | null;
  group: string | null;
  metric: string;
  resolution: Resolution;
  from: string;
  to: string;
  points: SeriesPoint[];
  gaps: Gap[];
  quantile_error: number;
  next_cursor: string | null;
}

export interface LiveSeriesPart {
  fleet: string;
  device: string;
  metric: string;
  points: [number, number][];
}

export interface LiveMessage {
  series?: LiveSeriesPart[];
  freshness_ms: number | null;
}

export interface Freshness {
  visible_ms_p50: number | null;
  visible_ms_p99: number | null;
  spool_delay_ms_max: number | null;
  total_ms: number | null;
}

export interface Gateway {
  gateway: string;
  status_at: string | null;
  status_age_s: number | null;
  spool_pending: number | null;
  spool_bytes: number | null;
  spool_bytes_max: number | null;
  oldest_age_s: number | null;
  silent: boolean;
}

export interface DeadLetterCounts {
  open: number;
  by_reason: { reason: string; count: number }[];
}

export interface LedgerTotals {
  received: number;
  stored: number;
  duplicates: number;
  dead_lettered: number;
  in_flight: number;
  not_kept: number;
  missing: number;
  damaged: number;
}

export interface OverviewLedger extends LedgerTotals {
  verdict: "complete" | "in_flight" | "missing";
}

/** A part whose store is away is null, and `problems` says which and why. */
export interface Overview {
  at: string;
  ingest_events_per_second: number | null;
  live_devices: number | null;
  freshness: Freshness | null;
  stored_rows: number | null;
  duplicates: number | null;
  raw_lag_records: number | null;
  rollup_lag_records: number | null;
  gateways: Gateway[] | null;
  dead_letters: DeadLetterCounts | null;
  ledger: OverviewLedger | null;
  problems?: unknown;
}

export interface MissingRange {
  epoch: string;
  from_seq: number;
  to_seq: number;
  numbers: number;
  noticed_at: string;
}

export interface LedgerGateway extends LedgerTotals {
  gateway: string;
  missing_ranges: MissingRange[];
  damaged_ranges: MissingRange[];
  unproven: string[];
}

export interface Ledger {
  at: string;
  total: LedgerTotals;
  gateways: LedgerGateway[];
}

export interface DeadLetter {
  id: string;
  state: "open" | "replayed" | "resolved";
  stage: string;
  reason: string;
  fleet: string | null;
  gateway: string | null;
  device_id: string | null;
  event_id: string | null;
  appended_at: string;
  detail_preview: string | null;
}

export interface DeadLettersPage {
  dead_letters: DeadLetter[];
  next_cursor: string | null;
}
