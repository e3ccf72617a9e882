// The search bar of a run: a search in the whole run, going to a line or a time, and a download of
// the run as text.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { LogPosition } from "../core/history";
import { highlightMatch, type Match, parsePosition, RunSearch } from "../core/search";
import { amount, clock } from "../core/time";
import { textPath } from "../core/url";

interface SearchBarProps {
  id: string;
  goTo(position: LogPosition, variation: number | null): void;
}

export function SearchBar({ id, goTo }: SearchBarProps) {
  const search = useSignal<RunSearch | null>(null);
  const revision = useSignal(0);
  const text = useSignal("");
  const regex = useSignal(false);
  const matchCase = useSignal(false);
  useEffect(() => () => search.value?.stop(), [search]);

  const close = () => {
    search.value?.stop();
    search.value = null;
  };
  const submit = (event: Event) => {
    event.preventDefault();
    close();
    if (text.value !== "") {
      const query = { text: text.value, regex: regex.value, ignoreCase: !matchCase.value };
      search.value = new RunSearch(id, query, () => {
        revision.value += 1;
      });
      void search.value.loadMore();
    }
  };
  return (
    <section class="search-bar">
      <search>
        <form onSubmit={submit}>
          <input
            type="search"
            placeholder="Search the whole run"
            aria-label="Search the whole run"
            data-testid="search-text"
            value={text.value}
            onInput={(event) => {
              text.value = event.currentTarget.value;
            }}
            onKeyDown={(event) => {
              if (event.key === "Escape") {
                close();
              }
            }}
          />
          <button
            type="button"
            class="plain"
            aria-pressed={matchCase.value}
            title="Match case"
            onClick={() => {
              matchCase.value = !matchCase.value;
            }}
          >
            Aa
          </button>
          <button
            type="button"
            class="plain"
            aria-pressed={regex.value}
            title="Regular expression"
            onClick={() => {
              regex.value = !regex.value;
            }}
          >
            .*
          </button>
        </form>
      </search>
      <GoToForm goTo={goTo} />
      <a class="plain" href={textPath(id)} download={`${id}.txt`} data-testid="download-text">
        Text
      </a>
      {search.value !== null && (
        <SearchResults search={search.value} revision={revision.value} goTo={goTo} close={close} />
      )}
    </section>
  );
}

function GoToForm({ goTo }: { goTo: SearchBarProps["goTo"] }) {
  const text = useSignal("");
  const problem = useSignal("");
  const submit = (event: Event) => {
    event.preventDefault();
    const position = parsePosition(text.value);
    problem.value = position === null ? "Enter a line number, or a time such as 2026-01-31 12:00" : "";
    if (position !== null) {
      goTo(position, null);
    }
  };
  return (
    <form onSubmit={submit}>
      <input
        class="go-to"
        placeholder="Go to line or time"
        aria-label="Go to line or time"
        aria-invalid={problem.value !== ""}
        data-testid="go-to"
        title={problem.value}
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value;
          problem.value = "";
        }}
      />
      <span class="problem" role="alert">
        {problem.value}
      </span>
    </form>
  );
}

interface SearchResultsProps {
  search: RunSearch;
  /** Changes with every change of the search, which is not a signal itself. */
  revision: number;
  goTo: SearchBarProps["goTo"];
  close(): void;
}

function SearchResults({ search, goTo, close }: SearchResultsProps) {
  const { matches, done, busy, problem, events } = search;
  const count = `${amount(matches.length)}${done ? "" : "+"} ${matches.length === 1 ? "line" : "lines"}`;
  return (
    <div class="search-results" data-testid="search-results" data-state={busy ? "busy" : done ? "done" : "more"}>
      <header>
        <output aria-live="polite">
          {busy ? `Searching, ${amount(events)} events so far …` : `${count} found, newest first`}
        </output>
        {!busy && !done && (
          <button type="button" class="plain" onClick={() => void search.loadMore()}>
            Search further
          </button>
        )}
        <button type="button" class="plain close" onClick={close}>
          Close
        </button>
      </header>
      {problem !== "" && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      <ol>
        {matches.map((match, at) => (
          <li key={at}>
            <button type="button" data-testid="search-hit" onClick={() => goTo({ id: match.id }, match.variation)}>
              <span class="time">{match.time > 0 ? clock(match.time) : ""}</span>
              <MatchText match={match} />
            </button>
          </li>
        ))}
      </ol>
    </div>
  );
}

function MatchText({ match }: { match: Match }) {
  return (
    <span class="line">
      {highlightMatch(match).map((part, at) => (part.hit ? <mark key={at}>{part.text}</mark> : part.text))}
    </span>
  );
}
