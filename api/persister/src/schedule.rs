//! Runs that wait inside this persister, first come first served, and those that a cycle has in hand.
//!
//! A run is never in two cycles at once: what the line says of it meanwhile waits until the cycle is
//! done. Pure bookkeeping; a run counts once however often the line names it, so the size is bounded by
//! how much the line is let in.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::persister::BATCH_RUNS;
use super::ready_queue::ReadyRun;

/// Least time between the beginnings of cycles while less than a batch waits: short beside the 100 ms in which an event
/// is to be stored, long enough for others to join when many come one by one, since a run with one event costs as much
/// as one with a hundred. What comes after a pause waits for nothing.
pub(super) const LINGER: Duration = Duration::from_millis(40);

/// The runs of one persister.
#[derive(Debug, Default)]
pub(super) struct RunSchedule {
    order: VecDeque<(Uuid, Instant)>,
    /// Ready entries of the runs in `order`.
    waiting: HashMap<Uuid, Vec<String>>,
    /// Runs in a cycle, with the ready entries that came since it began.
    busy: HashMap<Uuid, Vec<String>>,
    /// When runs were last handed out; absent if there was more than a batch.
    taken_at: Option<Instant>,
}

impl RunSchedule {
    /// How many runs wait.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// True if no run waits.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Lets a run in, at the back.
    pub(super) fn push(&mut self, run: ReadyRun) {
        if let Some(later) = self.busy.get_mut(&run.run) {
            merge(later, run.ready_ids);
        } else if let Some(ids) = self.waiting.get_mut(&run.run) {
            merge(ids, run.ready_ids);
        } else {
            self.order.push_back((run.run, Instant::now()));
            self.waiting.insert(run.run, run.ready_ids);
        }
    }

    /// When a further cycle should begin; none if nobody waits.
    #[must_use]
    pub(super) fn due(&self) -> Option<Instant> {
        let (_, since) = *self.order.front()?;
        match self.taken_at {
            Some(taken_at) if self.len() < BATCH_RUNS => Some(since.max(taken_at + LINGER)),
            _ => Some(since),
        }
    }

    /// Hands out the first runs, at most so many; each is to be given back by [`RunSchedule::done`].
    pub(super) fn take(&mut self, most: usize) -> Vec<ReadyRun> {
        let count = most.min(self.order.len());
        self.taken_at = Some(Instant::now());
        let mut taken = Vec::with_capacity(count);
        for (run, _) in self.order.drain(..count) {
            let ready_ids = self.waiting.remove(&run).unwrap_or_default();
            self.busy.insert(run, Vec::new());
            taken.push(ReadyRun { run, ready_ids });
        }
        taken
    }

    /// Takes note that there was more than a batch: the next begins at once.
    pub(super) fn hurry(&mut self) {
        self.taken_at = None;
    }

    /// Takes note that a cycle is over. `left` are those of its runs that it did not come to: they stand
    /// in front again.
    pub(super) fn done(&mut self, runs: &[Uuid], left: Vec<ReadyRun>) {
        for mut run in left.into_iter().rev() {
            if let Some(later) = self.busy.remove(&run.run) {
                merge(&mut run.ready_ids, later);
            }
            self.order.push_front((run.run, Instant::now()));
            self.waiting.insert(run.run, run.ready_ids);
        }
        for run in runs {
            match self.busy.remove(run) {
                Some(ready_ids) if !ready_ids.is_empty() => self.push(ReadyRun {
                    run: *run,
                    ready_ids,
                }),
                _ => {}
            }
        }
    }

    /// Forgets the runs that wait: others take them over.
    pub(super) fn clear(&mut self) {
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
    async fn a_run_is_in_one_cycle_at_a_time_and_comes_again_when_it_was_named_meanwhile() {
        let mut queue = RunSchedule::default();
        queue.push(ready(1, "1-0"));
        queue.push(ready(2, "1-1"));
        queue.push(ready(1, "1-2"));
        queue.push(ready(1, "1-2"));
        let taken = queue.take(1);
        assert_eq!(taken[0].ready_ids, ["1-0", "1-2"]);
        queue.push(ready(1, "2-0"));
        assert_eq!(queue.len(), 1, "run 1 is in hand");
        let other = queue.take(8);
        assert_eq!(other, [ready(2, "1-1")]);
        assert_eq!(queue.due(), None);
        queue.done(&[Uuid::from_u128(2)], Vec::new());
        assert!(queue.is_empty(), "nobody named run 2 again");
        queue.done(&[Uuid::from_u128(1)], Vec::new());
        assert_eq!(queue.take(8), [ready(1, "2-0")]);
    }

    #[tokio::test]
    async fn what_a_cycle_did_not_come_to_stands_in_front_again() {
        let mut queue = RunSchedule::default();
        for run in 1..=4 {
            queue.push(ready(run, "1-0"));
        }
        let mut taken = queue.take(3);
        queue.push(ready(3, "2-0"));
        let left = taken.split_off(1);
        queue.done(&[Uuid::from_u128(1)], left);
        let order: Vec<u128> = queue.order.iter().map(|(run, _)| run.as_u128()).collect();
        assert_eq!(order, [2, 3, 4]);
        assert_eq!(queue.waiting[&Uuid::from_u128(3)], ["1-0", "2-0"]);
        assert!(queue.busy.is_empty());
    }

    #[tokio::test]
    async fn after_a_pause_a_cycle_begins_at_once_and_the_next_when_it_pays() {
        let mut queue = RunSchedule::default();
        queue.push(ready(1, "1-0"));
        assert!(queue.due().expect("one waits") <= Instant::now());
        queue.take(8);
        queue.push(ready(2, "1-0"));
        let taken_at = queue.taken_at.expect("it has just been");
        assert_eq!(queue.due(), Some(taken_at + LINGER));
        queue.taken_at = Some(taken_at - LINGER);
        assert!(queue.due().expect("one waits") <= Instant::now());
        queue.taken_at = Some(Instant::now() + LINGER);
        for run in 3..=BATCH_RUNS as u128 + 1 {
            queue.push(ready(run, "1-0"));
        }
        assert!(queue.due().expect("many wait") <= Instant::now());
        queue.take(8);
        queue.hurry();
        assert!(queue.due().expect("some wait") <= Instant::now());
    }
}
