// The server's time. The page draws "now" by it, so that a browser whose clock is wrong still shows the last
// five minutes and not an empty chart.

// The Date header has whole seconds; smaller differences are no evidence.
const TRUSTED_MS = 2500;

let offset_ms = 0;

/** How far the server's clock is ahead of the browser's, or 0 when they agree as far as one can tell. */
export function clockOffset_ms(
  date_header: string | null,
  sent_ms: number,
  received_ms: number,
): number | null {
  const server_ms = date_header === null ? Number.NaN : Date.parse(date_header);
  // An answer that took long says little about when its header was written.
  if (Number.isNaN(server_ms) || received_ms - sent_ms > 2000) return null;
  const difference_ms = server_ms + 500 - (sent_ms + received_ms) / 2;
  return Math.abs(difference_ms) < TRUSTED_MS ? 0 : difference_ms;
}

export function observeServerDate(date_header: string | null, sent_ms: number, received_ms: number): void {
  offset_ms = clockOffset_ms(date_header, sent_ms, received_ms) ?? offset_ms;
}

export function now_ms(): number {
  return Date.now() + offset_ms;
}
