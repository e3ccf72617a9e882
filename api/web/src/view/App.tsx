// The frame of the page: asks who is signed in, then shows the form, the list of runs, or one run.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { currentSession, signOut } from "../core/session";
import { runsHash } from "../core/url";
import { RunList } from "./RunList";
import { RunView } from "./RunView";
import { SignIn } from "./SignIn";
import { route, session } from "./state";

const ASK_AGAIN_MS = 2000;

export function App() {
  const problem = useSignal("");

  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async () => {
      try {
        session.value = await currentSession();
        problem.value = "";
      } catch (error) {
        problem.value = (error as Error).message;
        timer = setTimeout(ask, ASK_AGAIN_MS);
      }
    };
    void ask();
    return () => clearTimeout(timer);
  }, [problem]);

  if (session.value === undefined) {
    return (
      <main class="quiet" aria-live="polite">
        {problem.value === "" ? "" : `Cannot start: ${problem.value}. Trying again.`}
      </main>
    );
  }
  if (session.value === null) {
    return <SignIn />;
  }
  const at = route.value;
  return (
    <>
      <header class="bar">
        <a class="brand" href={runsHash()}>
          Runcast
        </a>
        <span class="who">{session.value.name}</span>
        <button type="button" class="plain" onClick={leave}>
          Sign out
        </button>
      </header>
      {at.page === "run" ? <RunView key={at.id} id={at.id} /> : <RunList key={at.before ?? ""} before={at.before} />}
    </>
  );
}

async function leave(): Promise<void> {
  try {
    await signOut();
  } catch {
    // Signed out here in any case; without the gateway the cookie stays until it is asked again.
  }
  session.value = null;
}
