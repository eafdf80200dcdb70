// A line without axes: is it steady, rising, or gone?

export interface Sample {
  at_ms: number;
  value: number;
}

const WIDTH = 240;
const HEIGHT = 44;
const AIR = 3;

/** While there are few samples the line grows in from the right instead of being stretched. */
const SPAN_MIN_MS = 120_000;
// Polls come every two seconds; while another view was open there were none.
const JOIN_MAX_MS = 15_000;

/** The line and the area under it, as SVG paths; from zero, so that a dip looks its size. */
export function sparkPath(samples: readonly Sample[]): { line: string; area: string } {
  const [first, last] = [samples[0], samples.at(-1)];
  if (!first || !last || samples.length < 2) return { line: "", area: "" };
  const top = Math.max(...samples.map((sample) => sample.value), 1e-9);
  const span_ms = Math.max(SPAN_MIN_MS, last.at_ms - first.at_ms);
  const x = (at_ms: number) => (WIDTH - ((last.at_ms - at_ms) / span_ms) * WIDTH).toFixed(1);
  const y = (value: number) => (HEIGHT - (value / top) * (HEIGHT - AIR)).toFixed(1);
  let [line, area] = ["", ""];
  samples.forEach(({ at_ms, value }, i) => {
    const before = samples[i - 1];
    const joined = before !== undefined && at_ms - before.at_ms <= JOIN_MAX_MS;
    const next = samples[i + 1];
    const ends = next === undefined || next.at_ms - at_ms > JOIN_MAX_MS;
    line += `${joined ? "L" : "M"}${x(at_ms)} ${y(value)}`;
    area += `${joined ? "" : `M${x(at_ms)} ${HEIGHT}`}L${x(at_ms)} ${y(value)}${ends ? `L${x(at_ms)} ${HEIGHT}Z` : ""}`;
  });
  return { line, area };
}

export function Sparkline({ samples }: { samples: readonly Sample[] }) {
  const { line, area } = sparkPath(samples);
  return (
    <svg
      class="spark"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label="Ingest rate since the page was opened"
    >
      <path class="spark-ground" d={`M0 ${HEIGHT}H${WIDTH}`} />
      <path class="spark-fill" d={area} />
      <path class="spark-line" d={line} />
    </svg>
  );
}
