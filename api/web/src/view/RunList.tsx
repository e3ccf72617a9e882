// The list of runs, newest first, a page at a time. Reloads every two seconds while the page is
// visible.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError } from "../core/api";
import { pollWhileVisible } from "../core/poll";
import { listRuns, type Run, type RunPage, runTime } from "../core/runs";
import { age, amount, duration } from "../core/time";
import { runHash, runsHash, shortId } from "../core/url";
import { StatusBadge } from "./Status";
import { now, session } from "./state";

const POLL_MS = 2000;

export function RunList({ before }: { before: string | null }) {
  const page = useSignal<RunPage | null>(null);
  const problem = useSignal("");

  useEffect(() => {
    document.title = "Runs · Runcast";
    return pollWhileVisible(POLL_MS, async () => {
      try {
        page.value = await listRuns(before);
        problem.value = "";
      } catch (error) {
        if (error instanceof ApiError && error.status === 401) {
          session.value = null;
        }
        problem.value = (error as Error).message;
      }
    });
  }, [before, page, problem]);

  const runs = page.value?.runs;
  return (
    <main class="runs">
      <h1>Runs</h1>
      <p class="problem" role="alert">
        {problem.value === "" ? "" : `Not up to date: ${problem.value}.`}
      </p>
      {runs !== undefined && runs.length > 0 && (
        <table data-testid="run-list">
          <thead>
            <tr>
              <th>Status</th>
              <th>Run</th>
              <th class="number">Variations</th>
              <th class="number">Events</th>
              <th class="number">Started</th>
              <th class="number">Duration</th>
            </tr>
          </thead>
          <tbody>
            {runs.map((run) => (
              <RunRow key={run.id} run={run} />
            ))}
          </tbody>
        </table>
      )}
      {runs?.length === 0 && before === null && <NoRuns />}
      {runs?.length === 0 && before !== null && <p class="hint">No older runs.</p>}
      <nav class="pages" aria-label="Pages">
        {before !== null && <a href={runsHash()}>Newest</a>}
        {page.value?.next != null && <a href={runsHash(page.value.next)}>Older</a>}
      </nav>
    </main>
  );
}

function RunRow({ run }: { run: Run }) {
  const time = runTime(run, now.value);
  return (
    <tr data-testid="run-row" data-run={run.id}>
      <td>
        <StatusBadge status={run.status} />
      </td>
      <td class="name">
        <a href={runHash(run.id)}>{run.name}</a> <code title={run.id}>{shortId(run.id)}</code>
      </td>
      <td class="number" data-label={run.variations.length === 1 ? "variation" : "variations"}>
        {run.variations.length}
      </td>
      <td class="number" data-label="events">
        {amount(run.events)}
      </td>
      <td class="number" title={new Date(run.created_at).toLocaleString()}>
        {age(now.value - new Date(run.created_at).getTime())}
      </td>
      <td class="number">{time === null ? "–" : duration(time)}</td>
    </tr>
  );
}

function NoRuns() {
  return (
    <section class="empty" data-testid="no-runs">
      <h2>No runs yet</h2>
      <p>Run a command with Runcast, and its output appears here as the command prints it:</p>
      <pre>runcast wrap -- your command</pre>
    </section>
  );
}
