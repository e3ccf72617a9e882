// Does something now, and again some time after it was done, but only while the page is visible.

/** Returns what ends it. `act` is never started twice at a time; what it throws is its own to handle. */
export function pollWhileVisible(everyMs: number, act: () => Promise<void>): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let busy = false;
  let stopped = false;

  const round = async (): Promise<void> => {
    if (busy || stopped || document.visibilityState !== "visible") {
      return;
    }
    clearTimeout(timer);
    busy = true;
    try {
      await act();
    } finally {
      busy = false;
    }
    if (!stopped) {
      timer = setTimeout(round, everyMs);
    }
  };

  // Becoming visible starts the rounds again; a round that finds the page hidden ends them.
  document.addEventListener("visibilitychange", round);
  void round();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", round);
  };
}
