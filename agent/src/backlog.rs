//! What Postgres does not hold yet, kept in memory so that it can be sent again.
//!
//! A Redis acknowledgement is not durable: a flush or a failover may take back what Redis had
//! acknowledged. So an event leaves the backlog only when the durable seq has passed it. This is the
//! place of the disk spool: a spool keeps the same batches in a file, survives the death of the
//! process, and replaces this module behind the same four calls ([`Backlog::push`],
//! [`Backlog::from`], [`Backlog::release`], [`Backlog::has_room`]).
//!
//! Data: batches without a hole between them, oldest first. Bound: [`DEFAULT_BYTES`] of memory, by
//! [`Batch::cost`], exceeded by at most one batch. While it is full nothing is taken out of the
//! queue in front of it, so the publisher fills that and then waits.

use std::collections::VecDeque;

use crate::batch::Batch;

/// Memory of the backlog unless chosen otherwise: half a second of the fastest stream (500,000
/// events of 250 bytes a second), several times what the persister needs for a turn, and little
/// beside what a process that writes so much uses itself.
pub(crate) const DEFAULT_BYTES: usize = 64 * 1024 * 1024;

/// Batches that may have to be sent again.
#[derive(Debug)]
pub(crate) struct Backlog {
    batches: VecDeque<Batch>,
    cost: usize,
    most: usize,
}

impl Backlog {
    /// An empty backlog of `most` bytes.
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            batches: VecDeque::new(),
            cost: 0,
            most,
        }
    }

    /// True if one more batch may be pushed.
    pub(crate) const fn has_room(&self) -> bool {
        self.cost < self.most
    }

    /// Keeps the batch that follows the newest one.
    pub(crate) fn push(&mut self, batch: Batch) {
        debug_assert!(
            self.batches
                .back()
                .is_none_or(|newest| newest.last() + 1 == batch.first)
        );
        self.cost += batch.cost();
        self.batches.push_back(batch);
    }

    /// The batch that holds `seq`, from `seq` on; none if there is no such event.
    pub(crate) fn from(&self, seq: u64) -> Option<Batch> {
        let at = self.batches.partition_point(|batch| batch.last() < seq);
        let batch = self.batches.get(at)?;
        (batch.first <= seq).then(|| batch.from(seq))
    }

    /// Drops every batch that is durable as a whole.
    pub(crate) fn release(&mut self, durable: u64) {
        while let Some(oldest) = self.batches.front() {
            if oldest.last() > durable {
                break;
            }
            self.cost -= oldest.cost();
            self.batches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, count: u64) -> Batch {
        let lines: Vec<u8> = (first..first + count)
            .flat_map(|seq| format!("{seq}\n").into_bytes())
            .collect();
        Batch::new(first, count, lines)
    }

    #[test]
    fn an_event_leaves_only_when_it_is_durable() {
        let mut backlog = Backlog::new(1 << 20);
        backlog.push(batch(1, 10));
        backlog.push(batch(11, 5));
        backlog.release(9);
        assert_eq!(backlog.from(10).expect("kept").body.as_ref(), b"10\n");
        backlog.release(10);
        assert_eq!(backlog.from(10), None);
        assert_eq!(backlog.from(13).expect("kept").body, "13\n14\n15\n");
        assert_eq!(backlog.from(16), None);
        backlog.release(15);
        assert_eq!((backlog.cost, backlog.batches.len()), (0, 0));
    }

    #[test]
    fn it_is_bounded_by_what_it_costs() {
        let mut backlog = Backlog::new(batch(1, 1).cost() * 2);
        for seq in 1..=2 {
            assert!(backlog.has_room());
            backlog.push(batch(seq, 1));
        }
        assert!(!backlog.has_room());
        backlog.release(1);
        assert!(backlog.has_room());
    }
}
