// What can go wrong with a request, as one type that says what to do, and when to ask again.
import { sentence } from "../model/format";
import type { Role } from "./types";

export type ApiErrorKind =
  | "signed_out"
  | "forbidden"
  | "not_found"
  | "refused"
  | "limited"
  | "unavailable"
  | "network";

export class ApiError extends Error {
  constructor(
    readonly kind: ApiErrorKind,
    readonly status: number,
    message: string,
    readonly hints: string[] = [],
    readonly retry_after_ms: number | null = null,
  ) {
    super(message);
  }

  /** Asking again can help without anybody changing the question. */
  get retryable(): boolean {
    return this.kind === "limited" || this.kind === "unavailable" || this.kind === "network";
  }
}

function kindOf(status: number): ApiErrorKind {
  if (status === 401) return "signed_out";
  if (status === 403) return "forbidden";
  if (status === 404) return "not_found";
  if (status === 429) return "limited";
  return status >= 500 ? "unavailable" : "refused";
}

const FALLBACK: Record<ApiErrorKind, string> = {
  signed_out: "The session has ended.",
  forbidden: "This token's role does not reach that far.",
  not_found: "There is no such thing here.",
  refused: "The core did not understand the request.",
  limited: "Too many requests for this token.",
  unavailable: "The core can't answer at the moment.",
  network: "The core can't be reached.",
};

/** Retry-After as seconds or as a date; null when there is none. */
export function retryAfter_ms(header: string | null, now_ms: number): number | null {
  if (!header) return null;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
  const at_ms = Date.parse(header);
  return Number.isNaN(at_ms) ? null : Math.max(0, at_ms - now_ms);
}

/** From a problem-details body (RFC 9457), or anything else that a proxy in between may have sent. */
export function problemToError(status: number, body: unknown, retry_after_ms: number | null): ApiError {
  const kind = kindOf(status);
  const problem = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  const text = (key: string) => (typeof problem[key] === "string" ? (problem[key] as string) : "");
  const hints = Array.isArray(problem.hints)
    ? problem.hints.filter((e): e is string => typeof e === "string")
    : [];
  const message = sentence(text("detail") || text("title")) || FALLBACK[kind];
  return new ApiError(kind, status, message, hints.map(sentence), retry_after_ms);
}

/** The least role that may call a path, after the table in the contract. */
export function roleNeeded(method: string, path: string): Role {
  const changes = method !== "GET" && !path.startsWith("/v1/session");
  if (changes || path.startsWith("/v1/audit")) return "admin";
  return /^\/v1\/(raw|dead-letters|ledger)/.test(path) ? "analyst" : "viewer";
}

/** What to tell the person, in one sentence. */
export function sentenceOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const FIRST_DELAY_MS = 1000;
const MAX_DELAY_MS = 30_000;

/** When to ask again after the nth failure in a row (from 1): doubling, but never sooner than the server allows. */
export function retryDelay_ms(failures: number, retry_after_ms: number | null): number {
  const backoff_ms = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.max(0, failures - 1));
  return Math.max(backoff_ms, retry_after_ms ?? 0);
}
