//! Starts cycles for the claimed runs, and puts back what a cycle did not reach.
//!
//! Up to [`MAX_CYCLES`] cycles overlap; no run is in two of them. They are not stages with queues
//! between them: each cycle reads, commits and settles its own runs, so one reads while another
//! commits, and nothing has to be handed over. Batches grow by what arrives meanwhile: a batch is
//! one run when little is published, and up to [`MAX_BATCH_RUNS`] runs when much is. A run that
//! holds more than its share goes to the back of the ready queue.
//!
//! Bounds: [`MAX_WAITING_RUNS`] waiting runs, plus one further reply of each consumer.

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cycle::{Cycle, CycleOutcome};
use crate::ready_queue::ReadyRun;
use crate::schedule::{MAX_BATCH_RUNS, RunSchedule};

/// Overlapping cycles: one reads, one commits, one settles. More would only make batches smaller.
const MAX_CYCLES: usize = 3;

/// From this many waiting runs on, this persister leaves ready entries to other persisters.
const MAX_WAITING_RUNS: usize = 2 * MAX_BATCH_RUNS;

/// Starts and ends cycles until the consumers have stopped and all claimed runs are done.
pub(crate) async fn dispatch(
    cycle: Cycle,
    mut claimed: mpsc::Receiver<Vec<ReadyRun>>,
    stop: CancellationToken,
) {
    let mut schedule = RunSchedule::default();
    let mut cycles: JoinSet<CycleOutcome> = JoinSet::new();
    let mut is_open = true;
    while is_open || !schedule.is_empty() || !cycles.is_empty() {
        let due = schedule.due().filter(|_| cycles.len() < MAX_CYCLES);
        tokio::select! {
            // A cycle ended: put back the runs it did not reach, or that became ready meanwhile.
            ended = cycles.join_next(), if !cycles.is_empty() => match ended {
                Some(Ok(outcome)) => {
                    if outcome.is_full {
                        schedule.skip_pause();
                    }
                    schedule.end_cycle(&outcome.finished, outcome.left);
                    if outcome.gave_up {
                        schedule.clear();
                    }
                }
                Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
                None => {}
            },
            // A cycle is due.
            () = wait_until(due) => {
                let runs = schedule.start_cycle(MAX_BATCH_RUNS);
                cycles.spawn(cycle.clone().run(runs, stop.clone()));
            }
            // A consumer has claimed runs.
            runs = claimed.recv(), if is_open && schedule.len() < MAX_WAITING_RUNS => match runs {
                Some(runs) => runs.into_iter().for_each(|run| schedule.push(run)),
                None => is_open = false,
            },
        }
    }
}

/// Waits until `due`, or forever if there is no such moment.
async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
