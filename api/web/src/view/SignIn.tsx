// The form that turns a token into a session.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { signIn, signInError } from "../core/session";
import { session } from "./state";

export function SignIn() {
  const token = useSignal("");
  const problem = useSignal("");
  const busy = useSignal(false);
  const field = useRef<HTMLInputElement>(null);

  useEffect(() => {
    document.title = "Sign in · Runcast";
    field.current?.focus();
  }, []);

  const submit = async (event: Event) => {
    event.preventDefault();
    const text = token.value.trim();
    if (text === "") {
      problem.value = "Enter a token first.";
      return;
    }
    busy.value = true;
    problem.value = "";
    try {
      session.value = await signIn(text);
    } catch (error) {
      problem.value = signInError(error);
      field.current?.select();
    } finally {
      busy.value = false;
    }
  };

  return (
    <main class="sign-in">
      <form onSubmit={submit}>
        <h1>Runcast</h1>
        <label for="token">Token</label>
        <input
          id="token"
          ref={field}
          type="password"
          autocomplete="current-password"
          spellcheck={false}
          data-testid="sign-in-token"
          aria-describedby="token-hint token-problem"
          aria-invalid={problem.value !== ""}
          value={token.value}
          onInput={(event) => {
            token.value = event.currentTarget.value;
          }}
        />
        <p id="token-hint" class="hint">
          <code>deploy/local/up</code> leaves one in <code>.local/token</code>
        </p>
        <p id="token-problem" class="problem" role="alert" data-testid="sign-in-problem">
          {problem.value}
        </p>
        <button type="submit" data-testid="sign-in-submit" disabled={busy.value}>
          {busy.value ? "Signing in…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
