// A line without axes: is it steady, rising, or gone?

export interface Sample {
  at_ms: number;
  value: number;
}

const WIDTH = 240;
const HEIGHT = 44;
const AIR = 3;

/** The line as an SVG path, over the whole width once there are two samples; from zero, so that a dip looks its size. */
export function sparkPath(samples: readonly Sample[]): string {
  const [first, last] = [samples[0], samples.at(-1)];
  if (!first || !last || samples.length < 2) return "";
  const top = Math.max(...samples.map((sample) => sample.value), 1e-9);
  const width_ms = last.at_ms - first.at_ms;
  return samples
    .map(({ at_ms, value }, i) => {
      const x = ((at_ms - first.at_ms) / width_ms) * WIDTH;
      const y = HEIGHT - AIR - (value / top) * (HEIGHT - 2 * AIR);
      return `${i === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    })
    .join("");
}

export function Sparkline({ samples }: { samples: readonly Sample[] }) {
  const path = sparkPath(samples);
  return (
    <svg
      class="spark"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label="Ingest rate since the page was opened"
    >
      {path && <path class="spark-fill" d={`${path}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`} />}
      {path && <path class="spark-line" d={path} />}
    </svg>
  );
}
