//! Bodies of batches in memory, in the order of their seqs, and what they cost.
//!
//! Bound: the owner's, who looks at `cost` before a push or shrinks after it.

use std::collections::VecDeque;

use crate::batch::Batch;

/// Bodies in memory, oldest first.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    pub(super) bodies: VecDeque<Batch>,
    pub(super) cost: usize,
}

impl Bodies {
    pub(super) fn push(&mut self, batch: Batch) {
        self.cost += batch.cost();
        self.bodies.push_back(batch);
    }

    pub(super) fn get(&self, first: u64) -> Option<Batch> {
        let at = self.bodies.partition_point(|batch| batch.first < first);
        self.bodies
            .get(at)
            .filter(|batch| batch.first == first)
            .cloned()
    }

    pub(super) fn release(&mut self, durable: u64) {
        while self
            .bodies
            .front()
            .is_some_and(|oldest| oldest.last() <= durable)
        {
            self.pop();
        }
    }

    pub(super) fn shrink_to(&mut self, most: usize) {
        while self.cost > most {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.bodies.pop_front() {
            self.cost -= oldest.cost();
        }
    }

    pub(super) fn count_again(&mut self) {
        self.cost = self.bodies.iter().map(Batch::cost).sum();
    }
}
