//! The order of this persister's runs: those that wait, first come first served, and those that a
//! cycle works on.
//!
//! A run is never in two cycles at once: if it becomes ready again meanwhile, it waits until its
//! cycle is over. This is bookkeeping without I/O. A run counts once however many ready entries
//! name it, so the size is bounded by what the dispatcher lets in.
//!
//! A trickle of events does not become as many transactions: after a pause a cycle begins at once,
//! but cycles that are not full begin [`LINGER`] apart. A run with one event costs as much as one
//! with a hundred, and what it costs to store each event at once delays viewers.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::ready_queue::ReadyRun;

/// Most runs in one transaction: enough to share its cost, few enough to lock for a short time.
pub(crate) const MAX_BATCH_RUNS: usize = 256;

/// Shortest time between the beginnings of two cycles while less than a batch waits: short beside
/// the 100 ms in which an event should be stored, long enough for others to join when many come one
/// by one.
const LINGER: Duration = Duration::from_millis(40);

/// The runs of one persister.
#[derive(Debug, Default)]
pub(crate) struct RunSchedule {
    /// Waiting runs, and since when each waits.
    order: VecDeque<(Uuid, Instant)>,
    /// Ready entries of the runs in `order`.
    waiting: HashMap<Uuid, Vec<String>>,
    /// Runs in a cycle, with the ready entries that came since it began.
    in_cycle: HashMap<Uuid, Vec<String>>,
    /// When the last cycle began; absent if there was more than a batch.
    last_start: Option<Instant>,
}

impl RunSchedule {
    /// How many runs wait.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no run waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds a run at the back.
    pub(crate) fn push(&mut self, run: ReadyRun) {
        if let Some(ready_ids) = self.in_cycle.get_mut(&run.run) {
            merge(ready_ids, run.ready_ids);
        } else if let Some(ready_ids) = self.waiting.get_mut(&run.run) {
            merge(ready_ids, run.ready_ids);
        } else {
            self.order.push_back((run.run, Instant::now()));
            self.waiting.insert(run.run, run.ready_ids);
        }
    }

    /// When the next cycle should begin; none if no run waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (_, since) = *self.order.front()?;
        match self.last_start {
            Some(last_start) if self.len() < MAX_BATCH_RUNS => Some(since.max(last_start + LINGER)),
            _ => Some(since),
        }
    }

    /// Hands out the first `max_runs` runs for a cycle; [`RunSchedule::end_cycle`] takes them back.
    pub(crate) fn start_cycle(&mut self, max_runs: usize) -> Vec<ReadyRun> {
        let count = max_runs.min(self.order.len());
        self.last_start = Some(Instant::now());
        let mut runs = Vec::with_capacity(count);
        for (run, _) in self.order.drain(..count) {
            let ready_ids = self.waiting.remove(&run).unwrap_or_default();
            self.in_cycle.insert(run, Vec::new());
            runs.push(ReadyRun { run, ready_ids });
        }
        runs
    }

    /// Lets the next cycle begin at once, because there was more than a batch.
    pub(crate) fn skip_pause(&mut self) {
        self.last_start = None;
    }

    /// Ends a cycle. The runs that it did not reach (`left`) go to the front again.
    pub(crate) fn end_cycle(&mut self, finished: &[Uuid], left: Vec<ReadyRun>) {
        for mut run in left.into_iter().rev() {
            if let Some(ready_ids) = self.in_cycle.remove(&run.run) {
                merge(&mut run.ready_ids, ready_ids);
            }
            self.order.push_front((run.run, Instant::now()));
            self.waiting.insert(run.run, run.ready_ids);
        }
        for run in finished {
            match self.in_cycle.remove(run) {
                Some(ready_ids) if !ready_ids.is_empty() => self.push(ReadyRun {
                    run: *run,
                    ready_ids,
                }),
                _ => {}
            }
        }
    }

    /// Forgets the waiting runs: other persisters claim them.
    pub(crate) fn clear(&mut self) {
        self.order.clear();
        self.waiting.clear();
    }
}

fn merge(ids: &mut Vec<String>, more: Vec<String>) {
    for id in more {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(run: u128, id: &str) -> ReadyRun {
        ReadyRun {
            run: Uuid::from_u128(run),
            ready_ids: vec![id.to_owned()],
        }
    }

    #[tokio::test]
    async fn a_run_is_in_one_cycle_at_a_time_and_waits_again_if_it_became_ready_meanwhile() {
        let mut schedule = RunSchedule::default();
        schedule.push(ready(1, "1-0"));
        schedule.push(ready(2, "1-1"));
        schedule.push(ready(1, "1-2"));
        schedule.push(ready(1, "1-2"));
        let first = schedule.start_cycle(1);
        assert_eq!(first[0].ready_ids, ["1-0", "1-2"]);
        schedule.push(ready(1, "2-0"));
        assert_eq!(schedule.len(), 1, "run 1 is in a cycle");
        let other = schedule.start_cycle(8);
        assert_eq!(other, [ready(2, "1-1")]);
        assert_eq!(schedule.due(), None);
        schedule.end_cycle(&[Uuid::from_u128(2)], Vec::new());
        assert!(schedule.is_empty(), "run 2 did not become ready again");
        schedule.end_cycle(&[Uuid::from_u128(1)], Vec::new());
        assert_eq!(schedule.start_cycle(8), [ready(1, "2-0")]);
    }

    #[tokio::test]
    async fn runs_that_a_cycle_did_not_reach_go_to_the_front() {
        let mut schedule = RunSchedule::default();
        for run in 1..=4 {
            schedule.push(ready(run, "1-0"));
        }
        let mut first = schedule.start_cycle(3);
        schedule.push(ready(3, "2-0"));
        let left = first.split_off(1);
        schedule.end_cycle(&[Uuid::from_u128(1)], left);
        let order: Vec<u128> = schedule
            .order
            .iter()
            .map(|(run, _)| run.as_u128())
            .collect();
        assert_eq!(order, [2, 3, 4]);
        assert_eq!(schedule.waiting[&Uuid::from_u128(3)], ["1-0", "2-0"]);
        assert!(schedule.in_cycle.is_empty());
    }

    #[tokio::test]
    async fn a_cycle_begins_at_once_after_a_pause_and_the_next_after_linger_or_a_full_batch() {
        let mut schedule = RunSchedule::default();
        schedule.push(ready(1, "1-0"));
        assert!(schedule.due().expect("a run waits") <= Instant::now());
        schedule.start_cycle(8);
        schedule.push(ready(2, "1-0"));
        let last_start = schedule.last_start.expect("a cycle has begun");
        assert_eq!(schedule.due(), Some(last_start + LINGER));
        schedule.last_start = Some(last_start - LINGER);
        assert!(schedule.due().expect("a run waits") <= Instant::now());
        schedule.last_start = Some(Instant::now() + LINGER);
        for run in 3..=MAX_BATCH_RUNS as u128 + 1 {
            schedule.push(ready(run, "1-0"));
        }
        assert!(schedule.due().expect("a batch waits") <= Instant::now());
        schedule.start_cycle(8);
        schedule.skip_pause();
        assert!(schedule.due().expect("runs wait") <= Instant::now());
    }
}
