// The frame of the page: loads the session, then shows the sign-in form, the list of runs, or one
// run.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { signOut } from "../core/session";
import { openSession } from "../core/sign_in_link";
import { runsHash } from "../core/url";
import { RunList } from "./RunList";
import { RunView } from "./RunView";
import { SignIn } from "./SignIn";
import { route, session, signInLink, signInProblem } from "./state";

const RETRY_MS = 2000;

export function App() {
  const problem = useSignal("");
  const link = signInLink.value;

  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let superseded = false;
    const load = async () => {
      try {
        const opened = await openSession(link?.code ?? null);
        if (!superseded) {
          session.value = opened.session;
          signInProblem.value = link === null ? signInProblem.value : opened.problem;
          problem.value = "";
        }
      } catch (error) {
        if (!superseded) {
          problem.value = (error as Error).message;
          timer = setTimeout(load, RETRY_MS);
        }
      }
    };
    void load();
    return () => {
      superseded = true;
      clearTimeout(timer);
    };
  }, [problem, link]);

  if (session.value === undefined) {
    return (
      <main class="centered" aria-live="polite">
        {problem.value === "" ? "" : `Could not load the session: ${problem.value}. Retrying.`}
      </main>
    );
  }
  if (session.value === null) {
    return <SignIn />;
  }
  const current = route.value;
  return (
    <>
      <header class="bar">
        <a class="brand" href={runsHash()}>
          Runcast
        </a>
        <span class="user-name">{session.value.name}</span>
        <button type="button" class="plain" onClick={leaveSession}>
          Sign out
        </button>
      </header>
      {current.page === "run" ? (
        <RunView key={current.id} id={current.id} />
      ) : (
        <RunList key={current.before ?? ""} before={current.before} />
      )}
    </>
  );
}

async function leaveSession(): Promise<void> {
  try {
    await signOut();
  } catch {
    // The page shows the sign-in form in any case. If the gateway could not be reached, the session
    // is still valid and comes back with the next reload.
  }
  session.value = null;
  signInProblem.value = "";
}
