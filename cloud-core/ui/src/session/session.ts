// Who is signed in. The token itself is never kept: the core answers with an HttpOnly cookie.
import { whenSignedOut } from "../api/client";
import * as api from "../api/endpoints";
import { ApiError, sentenceOf } from "../api/errors";
import type { Session } from "../api/types";
import { Store } from "../load/store";

export type SessionState =
  | { kind: "asking" }
  | { kind: "unreachable"; message: string }
  | { kind: "out"; ended: boolean }
  | { kind: "in"; session: Session };

export const session = new Store<SessionState>({ kind: "asking" });

export async function resume(): Promise<void> {
  try {
    session.set({ kind: "in", session: await api.currentSession() });
  } catch (error) {
    if (error instanceof ApiError && error.kind === "signed_out") session.set({ kind: "out", ended: false });
    else session.set({ kind: "unreachable", message: sentenceOf(error) });
  }
}

export async function signIn(token: string): Promise<void> {
  session.set({ kind: "in", session: await api.signIn(token) });
}

export async function signOut(): Promise<void> {
  await api.signOut();
  session.set({ kind: "out", ended: false });
}

export function startSession(): void {
  // The route stays as it is: after signing in again the same view is there.
  whenSignedOut(() => session.set({ kind: "out", ended: session.get().kind === "in" }));
  void resume();
}
