// Runs a task now, and again a fixed time after it has finished, but only while the page is
// visible.

/**
 * Returns a function that stops polling. One `task` runs at a time, and must handle its own errors.
 */
export function pollWhileVisible(intervalMs: number, task: () => Promise<void>): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let busy = false;
  let stopped = false;

  const run = async (): Promise<void> => {
    if (busy || stopped || document.visibilityState !== "visible") {
      return;
    }
    clearTimeout(timer);
    busy = true;
    try {
      await task();
    } finally {
      busy = false;
    }
    if (!stopped) {
      timer = setTimeout(run, intervalMs);
    }
  };

  // A run that finds the page hidden sets no timer; becoming visible starts polling again.
  document.addEventListener("visibilitychange", run);
  void run();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", run);
  };
}
