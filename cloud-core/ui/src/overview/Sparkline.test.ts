import { expect, it } from "vitest";
import { sparkPath } from "./Sparkline";

it("grows in from the right, and from zero", () => {
  expect(sparkPath([])).toEqual({ line: "", area: "" });
  expect(sparkPath([{ at_ms: 0, value: 1 }]).line).toBe("");
  const { line } = sparkPath([
    { at_ms: 0, value: 0 },
    { at_ms: 12_000, value: 10 },
  ]);
  expect(line).toBe("M216.0 44.0L240.0 3.0");
});

it("fills the width once the page has been open for a while", () => {
  const samples = Array.from({ length: 100 }, (_, i) => ({ at_ms: i * 2000, value: 5 }));
  expect(sparkPath(samples).line.startsWith("M0.0 3.0")).toBe(true);
});

it("breaks where nobody was looking", () => {
  const at = (at_ms: number) => ({ at_ms, value: 5 });
  const { line, area } = sparkPath([at(0), at(2000), at(60_000), at(62_000)]);
  expect(line.match(/M/g)).toHaveLength(2);
  expect(area.match(/Z/g)).toHaveLength(2);
});
