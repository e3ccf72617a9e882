// Where in a run to look: a search in all of it, a line or a moment to go to, and all of it as text.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Find, highlighted, type Match, parsePlace } from "../core/search";
import { amount, clock } from "../core/time";
import { textPath } from "../core/url";

export type Wanted = { line: number } | { at: number } | { id: string };

interface PlacesProps {
  id: string;
  show(place: Wanted, variation: number | null): void;
}

export function Places({ id, show }: PlacesProps) {
  const find = useSignal<Find | null>(null);
  const revision = useSignal(0);
  const text = useSignal("");
  const regex = useSignal(false);
  const exact = useSignal(false);
  useEffect(() => () => find.value?.stop(), [find]);

  const close = () => {
    find.value?.stop();
    find.value = null;
  };
  const search = (event: Event) => {
    event.preventDefault();
    close();
    if (text.value !== "") {
      const what = { text: text.value, regex: regex.value, ignoreCase: !exact.value };
      find.value = new Find(id, what, () => {
        revision.value += 1;
      });
      void find.value.more();
    }
  };
  return (
    <section class="places">
      <search>
        <form onSubmit={search}>
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
            aria-pressed={exact.value}
            title="Upper and lower case count"
            onClick={() => {
              exact.value = !exact.value;
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
      <GoTo show={show} />
      <a class="plain" href={textPath(id)} download={`${id}.txt`} data-testid="download-text">
        Text
      </a>
      {find.value !== null && <Found find={find.value} revision={revision.value} show={show} close={close} />}
    </section>
  );
}

function GoTo({ show }: { show: PlacesProps["show"] }) {
  const text = useSignal("");
  const problem = useSignal("");
  const go = (event: Event) => {
    event.preventDefault();
    const place = parsePlace(text.value);
    problem.value = place === null ? "A line number, or a time such as 2026-01-31 12:00" : "";
    if (place !== null) {
      show(place, null);
    }
  };
  return (
    <form onSubmit={go}>
      <input
        class="goto"
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

interface FoundProps {
  find: Find;
  /** Changes with every change of the search, which is itself not a signal. */
  revision: number;
  show: PlacesProps["show"];
  close(): void;
}

function Found({ find, show, close }: FoundProps) {
  const { matches, done, busy, problem, events } = find;
  const count = `${amount(matches.length)}${done ? "" : "+"} ${matches.length === 1 ? "line" : "lines"}`;
  return (
    <div class="found" data-testid="search-found" data-state={busy ? "busy" : done ? "done" : "more"}>
      <header>
        <output aria-live="polite">
          {busy ? `Searching, ${amount(events)} events so far …` : `${count} found, newest first`}
        </output>
        {!busy && !done && (
          <button type="button" class="plain" onClick={() => void find.more()}>
            Search on
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
            <button type="button" data-testid="search-hit" onClick={() => show({ id: match.id }, match.variation)}>
              <span class="when">{match.time > 0 ? clock(match.time) : ""}</span>
              <FoundText match={match} />
            </button>
          </li>
        ))}
      </ol>
    </div>
  );
}

function FoundText({ match }: { match: Match }) {
  return (
    <span class="line">
      {highlighted(match).map((part, at) => (part.hit ? <mark key={at}>{part.text}</mark> : part.text))}
    </span>
  );
}
