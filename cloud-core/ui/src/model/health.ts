// What the figures of the overview mean: verdicts in words, and what comes first.
import type { Gateway, OverviewLedger } from "../api/types";
import { bytes, count, duration } from "./format";

export type Level = "good" | "warn" | "bad" | "none";

export interface Verdict {
  level: Level;
  title: string;
  text: string;
}

export function ledgerVerdict(ledger: OverviewLedger): Verdict {
  if (ledger.verdict === "missing") {
    const lost = ledger.missing + ledger.damaged;
    const damaged =
      ledger.damaged > 0
        ? ` ${count(ledger.damaged)} of them ${ledger.damaged === 1 ? "is" : "are"} damaged.`
        : "";
    return {
      level: "bad",
      title: `${count(lost)} missing`,
      text: `${count(lost)} of ${count(ledger.received)} events that gateways received are unaccounted for.${damaged}`,
    };
  }
  if (ledger.verdict === "in_flight") {
    return {
      level: "good",
      title: "In flight, nothing missing",
      text: `${count(ledger.in_flight)} events are on their way; everything else is stored or dead-lettered.`,
    };
  }
  return {
    level: "good",
    title: "Complete",
    text: `Every one of ${count(ledger.received)} events received is stored, a duplicate, or dead-lettered.`,
  };
}

/** The promise is 30 s from ingestion to the dashboard. */
export function freshnessLevel(total_ms: number | null | undefined): Level {
  if (total_ms === null || total_ms === undefined) return "none";
  return total_ms < 10_000 ? "good" : total_ms < 30_000 ? "warn" : "bad";
}

export function spoolShare(gateway: Gateway): number | null {
  if (gateway.spool_bytes === null || !gateway.spool_bytes_max) return null;
  return Math.min(1, gateway.spool_bytes / gateway.spool_bytes_max);
}

const OLD_EVENTS_S = 30;
const SPOOL_WARN = 0.5;
const SPOOL_BAD = 0.8;

export function gatewayHealth(gateway: Gateway): Verdict {
  const share = spoolShare(gateway);
  const oldest_s = gateway.oldest_age_s ?? 0;
  if (gateway.silent) {
    const since = gateway.status_age_s === null ? "" : ` for ${duration(gateway.status_age_s * 1000)}`;
    return { level: "bad", title: "Silent", text: `No status${since}. Is it powered and online?` };
  }
  if (share !== null && share >= SPOOL_BAD) {
    return {
      level: "bad",
      title: "Spool nearly full",
      text: `${bytes(gateway.spool_bytes)} are waiting on its disk.`,
    };
  }
  if (oldest_s > OLD_EVENTS_S || (share !== null && share >= SPOOL_WARN)) {
    return {
      level: "warn",
      title: "Behind",
      text: `The oldest waiting event is ${duration(oldest_s * 1000)} old.`,
    };
  }
  return { level: "good", title: "Forwarding", text: "" };
}

const RANK: Record<Level, number> = { bad: 0, warn: 1, good: 2, none: 3 };

/** Who needs a look first. */
export function worstFirst(gateways: readonly Gateway[]): Gateway[] {
  const key = (g: Gateway) =>
    [RANK[gatewayHealth(g).level], -(spoolShare(g) ?? 0), -(g.oldest_age_s ?? 0)] as const;
  return [...gateways].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    return (
      x[0] - y[0] || x[1] - y[1] || x[2] - y[2] || a.gateway.localeCompare(b.gateway, "en", { numeric: true })
    );
  });
}

/**
 * Why a part is null. The contract leaves the shape of `problems` open ("says which and why"), so it may be a map,
 * a list of objects, or a list of sentences.
 */
export function problemOf(problems: unknown, part: string): string | null {
  const texts = problemTexts(problems);
  return texts.get(part) ?? texts.get("") ?? null;
}

export function problemTexts(problems: unknown): Map<string, string> {
  const found = new Map<string, string>();
  const add = (part: string, value: unknown) => {
    if (typeof value === "string") found.set(part, [found.get(part), value].filter(Boolean).join("; "));
  };
  if (Array.isArray(problems)) {
    for (const one of problems) {
      if (typeof one === "string") {
        const [, part = "", rest = one] = /^([a-z_]+): (.*)$/.exec(one) ?? [];
        add(part, rest);
      } else if (one && typeof one === "object") {
        const { part, which, name, why, detail, reason, problem } = one as Record<string, unknown>;
        add(String(part ?? which ?? name ?? ""), why ?? detail ?? reason ?? problem);
      }
    }
  } else if (problems && typeof problems === "object") {
    for (const [part, value] of Object.entries(problems)) add(part, value);
  }
  return found;
}
