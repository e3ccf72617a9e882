// The sign-in form: a name and a password, or a token; and a link to the OpenID Connect issuer, if
// the gateway has one.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { type Credential, getIssuer, type Issuer, issuerHref, signIn, signInError } from "../core/session";
import { runsHash, signInFailure } from "../core/url";
import { signInProblem as problem, session } from "./state";

/** The state of the form, and what its buttons do. */
function useSignInForm() {
  const method = useSignal<"token" | "password">("password");
  const user = useSignal("");
  const secret = useSignal("");
  const busy = useSignal(false);
  const firstField = useRef<HTMLInputElement>(null);
  const byToken = method.value === "token";

  const submit = async (event: Event) => {
    event.preventDefault();
    const credential: Credential = byToken
      ? { token: secret.value.trim() }
      : { user: user.value.trim(), password: secret.value };
    if (Object.values(credential).includes("")) {
      problem.value = byToken ? "Enter a token first." : "Enter a name and a password first.";
      return;
    }
    busy.value = true;
    problem.value = "";
    try {
      session.value = await signIn(credential);
    } catch (error) {
      problem.value = signInError(error, method.value);
      firstField.current?.select();
    } finally {
      busy.value = false;
    }
  };

  const switchMethod = () => {
    method.value = byToken ? "password" : "token";
    secret.value = "";
    problem.value = "";
  };

  return { byToken, user, secret, busy, firstField, submit, switchMethod };
}

export function SignIn() {
  const { byToken, user, secret, busy, firstField, submit, switchMethod } = useSignInForm();
  const secondField = useRef<HTMLInputElement>(null);

  useEffect(() => {
    document.title = "Sign in · Runcast";
    if (signInFailure(location.hash) !== null) {
      // Show the failure once: a reload must not show it again.
      history.replaceState(null, "", runsHash());
    }
  }, []);
  useEffect(() => firstField.current?.focus(), [byToken]);

  return (
    <main class="sign-in">
      <form onSubmit={submit}>
        <h1>Runcast</h1>
        {byToken ? null : (
          <>
            <label for="user">Name or email</label>
            <input
              id="user"
              ref={firstField}
              type="text"
              autocomplete="username"
              autocapitalize="none"
              spellcheck={false}
              data-testid="sign-in-user"
              value={user.value}
              onInput={(event) => {
                user.value = event.currentTarget.value;
              }}
            />
          </>
        )}
        <label for="secret">{byToken ? "Token" : "Password"}</label>
        <input
          id="secret"
          ref={byToken ? firstField : secondField}
          type="password"
          autocomplete={byToken ? "off" : "current-password"}
          spellcheck={false}
          data-testid={byToken ? "sign-in-token" : "sign-in-password"}
          aria-describedby="secret-hint secret-problem"
          aria-invalid={problem.value !== ""}
          value={secret.value}
          onInput={(event) => {
            secret.value = event.currentTarget.value;
          }}
        />
        <p id="secret-hint" class="hint">
          {byToken ? (
            <>
              <code>deploy/local/up</code> writes one to <code>.local/token</code>
            </>
          ) : null}
        </p>
        <p id="secret-problem" class="problem" role="alert" data-testid="sign-in-problem">
          {problem.value}
        </p>
        <button type="submit" data-testid="sign-in-submit" disabled={busy.value}>
          {busy.value ? "Signing in…" : "Sign in"}
        </button>
        <IssuerLink />
        <button type="button" class="plain" data-testid="sign-in-other" onClick={switchMethod}>
          {byToken ? "Sign in with a name and a password" : "Sign in with a token"}
        </button>
      </form>
    </main>
  );
}

function IssuerLink() {
  const issuer = useSignal<Issuer | null>(null);
  useEffect(() => {
    getIssuer().then(
      (configured) => {
        issuer.value = configured;
      },
      () => {
        // The other methods still work, or show what is wrong with the gateway.
      },
    );
  }, [issuer]);
  return issuer.value === null ? null : (
    <a class="button" href={issuerHref(location)} data-testid="sign-in-issuer">
      Sign in with {issuer.value.name}
    </a>
  );
}
