//! Batches in memory, ordered by seq, with their total cost.
//!
//! The owner bounds them: it checks `cost` before a push or shrinks after it.

use std::collections::VecDeque;

use crate::queue::batch::Batch;

/// Batches in memory, oldest first.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    pub(super) batches: VecDeque<Batch>,
    /// Sum of [`Batch::cost`].
    pub(super) cost: usize,
}

impl Bodies {
    pub(super) fn push(&mut self, batch: Batch) {
        self.cost += batch.cost();
        self.batches.push_back(batch);
    }

    pub(super) fn get(&self, first: u64) -> Option<Batch> {
        let at = self.batches.partition_point(|batch| batch.first < first);
        self.batches
            .get(at)
            .filter(|batch| batch.first == first)
            .cloned()
    }

    pub(super) fn release(&mut self, durable: u64) {
        while self
            .batches
            .front()
            .is_some_and(|oldest| oldest.last() <= durable)
        {
            self.pop();
        }
    }

    pub(super) fn shrink_to(&mut self, max_cost: usize) {
        while self.cost > max_cost {
            self.pop();
        }
    }

    /// Removes the batch whose first event has this seq, if it is here.
    pub(super) fn remove(&mut self, first: u64) {
        self.batches.retain(|batch| batch.first != first);
        self.cost = self.batches.iter().map(Batch::cost).sum();
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.batches.pop_front() {
            self.cost -= oldest.cost();
        }
    }
}
