// Ranges of value axes. Pure.

/** Some air above and below, and never so close that noise fills the picture. */
export function valueRange(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null || !Number.isFinite(min) || !Number.isFinite(max)) return [0, 1];
  const size = Math.max(Math.abs(min), Math.abs(max));
  const span = Math.max(max - min, size * 0.02, 1e-6);
  const middle = (min + max) / 2;
  let low = middle - span * 0.6;
  const high = middle + span * 0.6;
  // What is never negative should not look as if it could be.
  if (min >= 0 && low < 0) low = 0;
  return [low, high];
}
