import { describe, expect, it } from "vitest";
import { valueRange } from "./axis";
import * as format from "./format";

describe("figures", () => {
  it("are short and never broken", () => {
    expect(format.count(1234567)).toBe("1,234,567");
    expect(format.count(null)).toBe("–");
    expect(format.shortCount(123_456_789)).toBe("123.5M");
    expect(format.shortCount(5000)).toBe("5,000");
    expect(format.measured(61.5000001)).toBe("61.5");
    expect(format.measured(0.00001)).toBe("1.00e-5");
    expect(format.measured(Number.NaN)).toBe("–");
    expect(format.steady(61.5)).toBe("61.50");
    expect(format.bytes(870_000_000)).toBe("870 MB");
    expect(format.bytes(12)).toBe("12 B");
    expect(format.perSecond(4987.2)).toBe("4,987");
    expect(format.perSecond(0.44)).toBe("0.4");
  });

  it("give durations in one unit", () => {
    const cases: [number, string][] = [
      [840, "840 ms"],
      [1240, "1.2 s"],
      [4000, "4 s"],
      [42_000, "42 s"],
      [180_000, "3 min"],
      [5 * 3_600_000, "5 h"],
      [72 * 3_600_000, "3 d"],
      [-5, "0 ms"],
    ];
    for (const [ms, text] of cases) expect(format.duration(ms)).toBe(text);
  });
});

describe("times", () => {
  const at = (day: number, hour: number, minute = 0) => new Date(2026, 10, day, hour, minute).getTime();
  it("say a day once", () => {
    expect(format.rangeText(at(27, 6), at(27, 7, 30))).toBe("27 Nov, 06:00 – 07:30");
    expect(format.rangeText(at(26, 22), at(27, 7))).toBe("26 Nov, 22:00 – 27 Nov, 07:00");
  });

  it("mark the change of day on an axis", () => {
    const hours = [at(26, 20), at(26, 22), at(27, 0), at(27, 2)];
    expect(format.axisTimes(hours, 7_200_000)).toEqual(["20:00", "22:00", "27 Nov", "02:00"]);
    expect(format.axisTimes([at(26, 0), at(27, 0)], 86_400_000)).toEqual(["26 Nov", "27 Nov"]);
  });
});

it("turns codes into words", () => {
  expect(format.words("schema_violation")).toBe("Schema violation");
});

describe("value axes", () => {
  it("have air, and do not blow up noise", () => {
    const [low, high] = valueRange(60, 60.0001);
    expect(high - low).toBeGreaterThan(1);
    expect(valueRange(0, 10)[0]).toBe(0);
    expect(valueRange(null, null)).toEqual([0, 1]);
    expect(valueRange(-5, 5)[0]).toBeLessThan(-5);
  });
});
