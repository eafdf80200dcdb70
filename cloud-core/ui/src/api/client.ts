// The only place that calls fetch. The session is an HttpOnly cookie: no code here ever sees a token again
// after it was posted.
import { observeServerDate } from "./clock";
import { ApiError, problemToError, retryAfter_ms, roleNeeded } from "./errors";

export type Params = Record<string, string | number | string[] | null | undefined>;

const TIMEOUT_MS = 20_000;

export function urlOf(path: string, params: Params = {}): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    if (value === null || value === undefined || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) query.append(key, String(one));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

let onSignedOut: () => void = () => {};

/** Called once by the session: a 401 anywhere leads back to the login. */
export function whenSignedOut(then: () => void): void {
  onSignedOut = then;
}

interface Request {
  method?: "GET" | "POST" | "DELETE";
  params?: Params;
  body?: unknown;
  accept?: string;
  signal?: AbortSignal;
}

/** A response that is fine, or an ApiError. */
export async function request(path: string, options: Request = {}): Promise<Response> {
  const method = options.method ?? "GET";
  const headers: Record<string, string> = { Accept: options.accept ?? "application/json" };
  // The core takes a change by cookie only with this header, which no foreign page can send.
  if (method !== "GET") headers["X-Penstock-Request"] = "1";
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  const signals = [AbortSignal.timeout(TIMEOUT_MS), ...(options.signal ? [options.signal] : [])];
  let response: Response;
  const sent_ms = Date.now();
  try {
    response = await fetch(urlOf(path, options.params), {
      method,
      headers,
      credentials: "same-origin",
      signal: AbortSignal.any(signals),
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const slow = error instanceof DOMException && error.name === "TimeoutError";
    throw new ApiError(
      "network",
      0,
      slow
        ? `The core has not answered for ${TIMEOUT_MS / 1000} s.`
        : "The core can't be reached from this browser.",
    );
  }
  observeServerDate(response.headers.get("Date"), sent_ms, Date.now());
  if (response.ok) return response;
  const error = problemToError(
    response.status,
    await response.json().catch(() => null),
    retryAfter_ms(response.headers.get("Retry-After"), Date.now()),
  );
  if (error.kind === "signed_out" && path !== "/v1/session") onSignedOut();
  if (error.kind === "forbidden") {
    error.hints.unshift(`It needs the role ${roleNeeded(method, path)} or higher.`);
  }
  throw error;
}

export async function getJson<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  const response = await request(path, { params, ...(signal ? { signal } : {}) });
  return (await response.json()) as T;
}
