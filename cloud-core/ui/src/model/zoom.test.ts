import { describe, expect, it } from "vitest";
import { applyZoom, clampSpan, panSpan, SPAN_MAX_MS, SPAN_MIN_MS, zoomActionOf, zoomSpan } from "./zoom";

const HOUR = 3_600_000;
const now = Date.UTC(2026, 10, 27, 12);
const day = { from_ms: now - 24 * HOUR, to_ms: now };
const width = (span: { from_ms: number; to_ms: number }) => span.to_ms - span.from_ms;

describe("zooming", () => {
  it("holds the moment under the pointer", () => {
    const closer = zoomSpan(day, 0.5, 0.25, now);
    expect(width(closer)).toBe(12 * HOUR);
    const held = day.from_ms + 6 * HOUR;
    expect((held - closer.from_ms) / width(closer)).toBeCloseTo(0.25);
  });

  it("in and out again is where it was", () => {
    expect(zoomSpan(zoomSpan(day, 0.5, 0.5, now), 2, 0.5, now)).toEqual(day);
  });

  it("opens into the past when now is at the edge", () => {
    const wide = zoomSpan(day, 2, 0.5, now);
    expect(width(wide)).toBe(48 * HOUR);
    expect(wide.to_ms).toBe(now + 0.05 * 48 * HOUR);
  });

  it("stays within what makes sense", () => {
    let span = day;
    for (let i = 0; i < 40; i++) span = zoomSpan(span, 0.5, 0.5, now);
    expect(width(span)).toBe(SPAN_MIN_MS);
    for (let i = 0; i < 60; i++) span = zoomSpan(span, 2, 0.5, now);
    expect(width(span)).toBe(SPAN_MAX_MS);
    expect(span.from_ms).toBeLessThan(now);
  });

  it("widens a selection of nothing around it", () => {
    const span = clampSpan({ from_ms: now - HOUR, to_ms: now - HOUR + 500 }, now);
    expect(width(span)).toBe(SPAN_MIN_MS);
    expect((span.from_ms + span.to_ms) / 2).toBeCloseTo(now - HOUR + 250, -4);
  });
});

describe("panning", () => {
  it("keeps the width", () => {
    expect(panSpan(day, -0.25, now)).toEqual({
      from_ms: day.from_ms - 6 * HOUR,
      to_ms: day.to_ms - 6 * HOUR,
    });
  });

  it("does not run away into the future", () => {
    let span = day;
    for (let i = 0; i < 20; i++) span = panSpan(span, 0.25, now);
    expect(span.to_ms).toBe(now + 0.05 * 24 * HOUR);
    expect(width(span)).toBe(24 * HOUR);
  });

  it("comes back to now", () => {
    expect(applyZoom(panSpan(day, -3, now), "now", now)).toEqual(day);
  });
});

it("knows its keys", () => {
  expect(["+", "-", "ArrowLeft", "ArrowRight", "End", "x"].map(zoomActionOf)).toEqual([
    "in",
    "out",
    "back",
    "forward",
    "now",
    null,
  ]);
});
