// How the page looks when there is nothing to show: loading, empty, and failed.
import type { ComponentChildren } from "preact";
import type { ApiError } from "../api/errors";
import { useStore } from "../load/store";
import { session } from "../session/session";
import { Icon, type IconName } from "./Icon";

export function Loading({ what, lines = 3 }: { what: string; lines?: number }) {
  return (
    <div class="skeleton" role="status" data-testid="loading">
      <span class="visually-hidden">Loading {what}</span>
      {Array.from({ length: lines }, (_, i) => (
        <div key={i} />
      ))}
    </div>
  );
}

interface EmptyProps {
  icon: IconName;
  title: string;
  children: ComponentChildren;
}

export function Empty({ icon, title, children }: EmptyProps) {
  return (
    <div class="empty" data-testid="empty">
      <Icon name={icon} />
      <h2>{title}</h2>
      <div>{children}</div>
    </div>
  );
}

const TITLE: Record<ApiError["kind"], string> = {
  signed_out: "Signed out",
  forbidden: "Your role does not reach that far",
  not_found: "Not found",
  refused: "The core refused the question",
  limited: "Too many requests",
  unavailable: "Not available",
  network: "No connection",
};

export function Failed({ error, onRetry }: { error: ApiError; onRetry?: () => void }) {
  const who = useStore(session);
  const role = who.kind === "in" ? who.session.role : "";
  return (
    <div class="empty failed" role="alert" data-testid="failed">
      <Icon name="warn" />
      <h2>{TITLE[error.kind]}</h2>
      <div>
        <p>{error.message}</p>
        {error.hints.length > 0 && (
          <ul>
            {error.hints.map((hint) => (
              <li key={hint}>{hint}</li>
            ))}
          </ul>
        )}
        {error.kind === "forbidden" && (
          <p>
            You are signed in as {role}. Ask whoever runs the core for a token with the higher role, sign out,
            and sign in with it.
          </p>
        )}
        {error.retryable && <p>It is tried again by itself.</p>}
        {onRetry && error.kind !== "limited" && error.kind !== "forbidden" && (
          <button type="button" class="button" onClick={onRetry}>
            {error.retryable ? "Try now" : "Ask again"}
          </button>
        )}
      </div>
    </div>
  );
}
