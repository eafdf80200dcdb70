// Buckets: how wide they are, and which of them the server will choose.
import type { Resolution } from "../api/types";

export const BUCKET_MS: Record<Resolution, number> = { "1m": 60_000, "1h": 3_600_000, "1d": 86_400_000 };

export const RESOLUTION_NAME: Record<Resolution, string> = {
  "1m": "1 minute",
  "1h": "1 hour",
  "1d": "1 day",
};

/** How it is said beside a chart. */
export const PER_BUCKET: Record<Resolution, string> = {
  "1m": "per minute",
  "1h": "per hour",
  "1d": "per day",
};

const AUTO_POINTS_MAX = 1500;
/** More than this is neither readable nor quick to draw. */
export const POINTS_MAX = 10_000;

/** What `resolution=auto` means: the finest with at most 1,500 points. */
export function autoResolution(width_ms: number): Resolution {
  if (width_ms / BUCKET_MS["1m"] <= AUTO_POINTS_MAX) return "1m";
  return width_ms / BUCKET_MS["1h"] <= AUTO_POINTS_MAX ? "1h" : "1d";
}

/** A resolution that a person may choose for this range without asking for more than can be drawn. */
export function drawable(resolution: Resolution, width_ms: number): boolean {
  return width_ms / BUCKET_MS[resolution] <= POINTS_MAX;
}

/**
 * The range to ask for, so that the buckets at both edges of what is seen are in the answer: a bucket counts by its
 * beginning.
 */
export function asked(
  span: { from_ms: number; to_ms: number },
  resolution: Resolution | "auto",
): { from_ms: number; to_ms: number } {
  const width_ms = span.to_ms - span.from_ms;
  const finest = resolution === "auto" ? autoResolution(width_ms) : resolution;
  const align = (bucket_ms: number) => ({
    from_ms: Math.floor(span.from_ms / bucket_ms) * bucket_ms,
    to_ms: Math.ceil(span.to_ms / bucket_ms) * bucket_ms,
  });
  const aligned = align(BUCKET_MS[finest]);
  if (resolution !== "auto") return aligned;
  // Aligning may have pushed it over the limit to the next coarser one.
  return align(BUCKET_MS[autoResolution(aligned.to_ms - aligned.from_ms)]);
}
