import { describe, expect, it } from "vitest";
import { urlOf } from "./client";
import { clockOffset_ms } from "./clock";
import { problemToError, retryAfter_ms, retryDelay_ms, roleNeeded } from "./errors";

describe("problems", () => {
  it("carry what the core said", () => {
    const body = {
      type: "x",
      title: "Bad request",
      status: 400,
      detail: "one mistake",
      hints: ["limit: want a number"],
    };
    const error = problemToError(400, body, null);
    expect(error).toMatchObject({
      kind: "refused",
      message: "One mistake.",
      hints: ["Limit: want a number."],
    });
    expect(error.retryable).toBe(false);
  });

  it("make sense without a body", () => {
    expect(problemToError(502, null, null)).toMatchObject({ kind: "unavailable", retryable: true });
    expect(problemToError(401, "<html>", null).kind).toBe("signed_out");
    expect(problemToError(429, {}, 5000)).toMatchObject({ kind: "limited", retry_after_ms: 5000 });
  });
});

describe("asking again", () => {
  it("reads Retry-After", () => {
    expect(retryAfter_ms("7", 0)).toBe(7000);
    expect(retryAfter_ms("Fri, 27 Nov 2026 06:00:10 GMT", Date.UTC(2026, 10, 27, 6))).toBe(10_000);
    expect(retryAfter_ms(null, 0)).toBeNull();
    expect(retryAfter_ms("soon", 0)).toBeNull();
  });

  it("doubles up to half a minute, and never before the core allows", () => {
    expect([1, 2, 3, 4, 5, 6, 7].map((n) => retryDelay_ms(n, null))).toEqual([
      1000, 2000, 4000, 8000, 16_000, 30_000, 30_000,
    ]);
    expect(retryDelay_ms(1, 60_000)).toBe(60_000);
  });
});

it("knows which role a path needs", () => {
  expect(roleNeeded("GET", "/v1/overview")).toBe("viewer");
  expect(roleNeeded("GET", "/v1/dead-letters")).toBe("analyst");
  expect(roleNeeded("GET", "/v1/ledger")).toBe("analyst");
  expect(roleNeeded("PUT", "/v1/groups")).toBe("admin");
  expect(roleNeeded("POST", "/v1/session")).toBe("viewer");
});

it("builds addresses without empty parameters", () => {
  expect(urlOf("/v1/devices", { q: "a b&c", cursor: null, limit: 8, metric: ["x", "y"] })).toBe(
    "/v1/devices?q=a+b%26c&limit=8&metric=x&metric=y",
  );
});

it("trusts the server's clock only when it is clearly another", () => {
  const sent = Date.UTC(2026, 10, 27, 6);
  const header = (ms: number) => new Date(ms).toUTCString();
  expect(clockOffset_ms(header(sent), sent, sent + 50)).toBe(0);
  expect(clockOffset_ms(header(sent + 600_000), sent, sent + 50)).toBeCloseTo(600_475, -2);
  expect(clockOffset_ms(header(sent + 600_000), sent, sent + 5000)).toBeNull();
  expect(clockOffset_ms(null, sent, sent)).toBeNull();
});
