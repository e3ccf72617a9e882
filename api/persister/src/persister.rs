//! The persister: what stands in run streams goes into Postgres, each event exactly once.
//!
//! Ready runs are taken from the line ([`ready`]; in a cluster each partition has one of its own) into a short queue ([`queue`]). A [`cycle`] takes the
//! first of them, reads what they hold beyond their watermarks ([`turn`]), decides what to write ([`rows`]),
//! writes it for all of them in one transaction ([`runcast_store::ingest`]), and tells Redis, which
//! acknowledges, trims and wakes viewers and producers (`settle.lua`). Up to [`CYCLES`] of them overlap, so
//! that one reads while another one commits; no run is in two of them. A run with more behind it than its
//! share goes to the back of the line. Beside that, a [`survey`] watches how much Redis holds.
//!
//! A batch is what has come together: one run when it is quiet, up to [`BATCH_RUNS`] when there is much. Cycles that
//! are not full keep a distance of [`queue::LINGER`], so that a trickle of events is not as many transactions.
//!
//! Any number of persisters may run. The line spreads work and a dead one's runs are taken over; if
//! two work on one run all the same, the watermark under lock lets one of them win and the other
//! find nothing to do. Nothing is acknowledged or trimmed before its transaction is committed.
//!
//! Bounds: [`QUEUE_RUNS`] waiting runs and one further reply of each line; per cycle the bytes that
//! [`cycle`] names. While Postgres or Redis is down a cycle is repeated with a jittered backoff of at most 2 s.

use futures::FutureExt as _;
use futures::future::join_all;
use runcast_common::backoff::Backoff;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use runcast_common::scripts::Window;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::cycle::Cycle;
use crate::memory_budget::MemoryBudget;
use crate::memory_budget::MemoryPressure;
use crate::memory_monitor::MemoryMonitor;
use crate::metrics::Metrics;
use crate::ready_queue::{ReadyConsumer, ReadyRun};
use crate::schedule::RunSchedule;
use runcast_store::Store;

/// Cycles that overlap: one reads, one writes, one tells. More would only make batches smaller.
const CYCLES: usize = 3;

/// Most runs in one transaction: enough to share its cost, few enough to lock for a short time.
pub(crate) const BATCH_RUNS: usize = 256;

/// Waiting runs from which the line is left to other persisters.
const QUEUE_RUNS: usize = 2 * BATCH_RUNS;

/// Stores what producers append.
#[derive(Debug)]
pub struct Persister {
    cycle: Cycle,
    budget: MemoryBudget,
}

/// What became of a cycle.
struct CycleOutcome {
    runs: Vec<Uuid>,
    left: Vec<ReadyRun>,
    /// There was more than fits in.
    is_full: bool,
    /// Told to stop while Postgres or Redis was down.
    gave_up: bool,
}

impl Persister {
    /// A persister between this Redis and this Postgres, which leaves `window` to viewers and keeps Redis
    /// within `budget`.
    #[must_use]
    pub fn new(
        redis: Redis,
        store: Store,
        keys: Keys,
        window: Window,
        budget: MemoryBudget,
        meter: Metrics,
    ) -> Self {
        Self {
            budget,
            cycle: Cycle {
                redis,
                store,
                keys,
                window,
                pressure: MemoryPressure::default(),
                meter,
            },
        }
    }

    /// Works until told to stop; what has been taken from the line is finished first, unless a server is
    /// down.
    pub async fn run(self, stop: CancellationToken) {
        let lines = ReadyConsumer::all(&self.cycle.redis, &self.cycle.keys);
        // Room for a reply of each, so that none waits for another one.
        let (sender, taken) = mpsc::channel(lines.len());
        let fed = lines.into_iter().map(|line| {
            let (meter, stop) = (self.cycle.meter.clone(), stop.clone());
            feed(line, sender.clone(), meter, stop)
        });
        let fed = join_all(fed);
        drop(sender);
        let survey = MemoryMonitor::new(
            self.cycle.redis.clone(),
            self.cycle.keys.clone(),
            self.budget,
            self.cycle.pressure.clone(),
            self.cycle.window,
            self.cycle.meter.clone(),
        );
        // Boxed: through so many layers the compiler does not see that they are `Send`.
        let (lines, (), ()) = tokio::join!(
            fed.boxed(),
            work(self.cycle, taken, stop.clone()).boxed(),
            survey.run(stop.clone()).boxed(),
        );
        join_all(lines.into_iter().map(ReadyConsumer::leave))
            .boxed()
            .await;
    }
}

/// Lets runs into the queue, and starts and ends cycles, until the line is closed and all is done.
async fn work(cycle: Cycle, mut taken: mpsc::Receiver<Vec<ReadyRun>>, stop: CancellationToken) {
    let mut queue = RunSchedule::default();
    let mut cycles: JoinSet<CycleOutcome> = JoinSet::new();
    let mut open = true;
    while open || !queue.is_empty() || !cycles.is_empty() {
        let due = queue.due().filter(|_| cycles.len() < CYCLES);
        tokio::select! {
            ended = cycles.join_next(), if !cycles.is_empty() => match ended {
                Some(Ok(ended)) => {
                    if ended.is_full {
                        queue.hurry();
                    }
                    queue.done(&ended.runs, ended.left);
                    if ended.gave_up {
                        queue.clear();
                    }
                }
                Some(Err(died)) => std::panic::resume_unwind(died.into_panic()),
                None => {}
            },
            () = at(due) => {
                let runs = queue.take(BATCH_RUNS);
                cycles.spawn(begin(cycle.clone(), runs, stop.clone()));
            }
            runs = taken.recv(), if open && queue.len() < QUEUE_RUNS => match runs {
                Some(runs) => runs.into_iter().for_each(|run| queue.push(run)),
                None => open = false,
            },
        }
    }
}

/// Waits for a moment; for ever if there is none.
async fn at(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn begin(cycle: Cycle, mut runs: Vec<ReadyRun>, stop: CancellationToken) -> CycleOutcome {
    let outcome = cycle.persevere(&runs, &stop).await;
    let (left, is_full) = match &outcome {
        Some(done) => (runs.split_off(done.runs), done.is_full),
        None => (Vec::new(), false),
    };
    CycleOutcome {
        runs: runs.into_iter().map(|run| run.run).collect(),
        left,
        is_full,
        gave_up: outcome.is_none(),
    }
}

/// Takes runs from the line whenever there is room for them.
async fn feed(
    mut line: ReadyConsumer,
    room: mpsc::Sender<Vec<ReadyRun>>,
    meter: Metrics,
    stop: CancellationToken,
) -> ReadyConsumer {
    let mut backoff = Backoff::for_connections();
    loop {
        let next = async {
            let permit = room.reserve().await.ok()?;
            Some((permit, line.take().await))
        };
        // The other end is there as long as this one is.
        let Some(Some((permit, taken))) = stop.run_until_cancelled(next).await else {
            return line;
        };
        match taken {
            Ok(taken) => {
                backoff.reset();
                if taken.claimed {
                    meter.claimed(taken.runs.len());
                }
                if !taken.runs.is_empty() {
                    permit.send(taken.runs);
                }
            }
            Err(error) => {
                drop(permit);
                if backoff.attempts() == 0 {
                    warn!(%error, "cannot take ready runs; trying again");
                } else {
                    debug!(%error, "still cannot take ready runs");
                }
                let wait = tokio::time::sleep(backoff.next_wait());
                if stop.run_until_cancelled(wait).await.is_none() {
                    return line;
                }
            }
        }
    }
}
