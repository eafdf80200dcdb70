import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, sentenceOf } from "../api/errors";
import { Logo } from "../shell/Icon";
import { signIn } from "./session";

function problem(error: unknown): string {
  if (error instanceof ApiError && error.kind === "signed_out") {
    return "The core does not know this token, or it has expired or been revoked. Check that it was copied whole.";
  }
  return sentenceOf(error);
}

export function Login({ ended }: { ended: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);

  // The only thing to do on this page; the attribute would work only on the first one.
  useEffect(() => input.current?.focus(), []);

  const submit = async (event: Event) => {
    event.preventDefault();
    const token = input.current?.value.trim() ?? "";
    if (!token) {
      setError("Paste a token first.");
      input.current?.focus();
      return;
    }
    setBusy(true);
    setError(null);
    try {
      await signIn(token);
    } catch (caught) {
      setError(problem(caught));
      setBusy(false);
      input.current?.select();
    }
  };

  return (
    <main class="login">
      <form class="login-card" onSubmit={submit} data-testid="login">
        <div class="login-brand">
          <Logo />
          <h1>Penstock</h1>
        </div>
        <p class="lead">
          {ended
            ? "Your session has ended. Sign in again to go on where you were."
            : "Live and historical telemetry of your fleets."}
        </p>
        <label for="token">Access token</label>
        <input
          id="token"
          ref={input}
          type="password"
          autoComplete="current-password"
          spellcheck={false}
          placeholder="Paste your token"
          aria-invalid={error !== null}
          aria-describedby="token-help token-error"
          data-testid="login-token"
        />
        <p id="token-error" class="field-error" role="alert" data-testid="login-error">
          {error}
        </p>
        <button type="submit" class="button primary wide" disabled={busy} data-testid="login-submit">
          {busy ? "Signing in…" : "Sign in"}
        </button>
        <div id="token-help" class="login-help">
          <p>No token yet? Whoever runs the core makes one:</p>
          <pre>
            <code>cloud-core tokens create --role viewer --name wall-display</code>
          </pre>
          <p>
            <b>viewer</b> sees this dashboard, <b>analyst</b> also dead letters and the ledger in detail. The
            token is exchanged for a session cookie and not kept by the page.
          </p>
        </div>
      </form>
    </main>
  );
}
