// Figures and times as people read them. Pure: the time zone is the browser's, everything else an argument.

const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? NONE : whole.format(value);
}

/** 123,456,789 as 123.5M: for cards, where the exact figure is in the title. */
export function shortCount(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  return Math.abs(value) < 100_000 ? whole.format(value) : compact.format(value);
}

/** A measured value: four significant digits, and never 61.50000001. */
export function measured(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return value.toExponential(2);
  const decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3;
  return new Intl.NumberFormat("en", { minimumFractionDigits: 0, maximumFractionDigits: decimals }).format(
    value,
  );
}

/** The same with as many decimals each time, for a value that changes while it is watched. */
export function steady(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return value.toExponential(2);
  const decimals = size >= 1000 ? 0 : size >= 100 ? 1 : 2;
  return new Intl.NumberFormat("en", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  }).format(value);
}

export function perSecond(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  return value < 10 && value > 0 ? value.toFixed(1) : whole.format(value);
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < BYTE_UNITS.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

/** 840 ms, 1.2 s, 42 s, 3 min, 5 h, 2 d: one unit, as much as one needs to judge it. */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return NONE;
  const value = Math.max(0, ms);
  if (value < 1000) return `${Math.round(value)} ms`;
  // Ages that come in whole seconds do not pretend to know tenths.
  if (value < 9950 && value % 1000 !== 0) return `${(value / 1000).toFixed(1)} s`;
  if (value < 120_000) return `${Math.round(value / 1000)} s`;
  if (value < 2 * 3_600_000) return `${Math.round(value / 60_000)} min`;
  if (value < 2 * 86_400_000) return `${Math.round(value / 3_600_000)} h`;
  return `${Math.round(value / 86_400_000)} d`;
}

const pad = (n: number) => String(n).padStart(2, "0");

export function clockTime(ms: number): string {
  const at = new Date(ms);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export function day(ms: number): string {
  const at = new Date(ms);
  return `${at.getDate()} ${MONTHS[at.getMonth()]}`;
}

export function dayTime(ms: number): string {
  return `${day(ms)}, ${clockTime(ms).slice(0, 5)}`;
}

/** A range without saying the same day twice. */
export function rangeText(from_ms: number, to_ms: number): string {
  const sameDay = day(from_ms) === day(to_ms);
  return `${dayTime(from_ms)} – ${sameDay ? clockTime(to_ms).slice(0, 5) : dayTime(to_ms)}`;
}

/** The marks of a time axis: the day only where it changes, seconds only where they matter. */
export function axisTimes(splits_ms: number[], step_ms: number): string[] {
  let before = "";
  return splits_ms.map((ms) => {
    const date = day(ms);
    const fresh = date !== before;
    const first = before === "";
    before = date;
    if (step_ms >= 86_400_000) return date;
    const time = step_ms < 60_000 ? clockTime(ms) : clockTime(ms).slice(0, 5);
    return fresh && (!first || time === "00:00") && step_ms >= 60_000 ? date : time;
  });
}

/** What a program says, as a sentence: "no such group" → "No such group." */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  const first = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}

/** dead_letter_reason → Dead letter reason */
export function words(code: string): string {
  const text = code.replaceAll(/[_-]+/g, " ").trim();
  return text.charAt(0).toUpperCase() + text.slice(1);
}
