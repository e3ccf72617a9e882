//! Changes of a watched run that are no events of it: the run is lost, was found again, or is
//! deleted.
//!
//! Data: the last [`MAX_UPDATES`], each with a number, so that a viewer gets only those that are
//! newer than what it was sent. A viewer that comes later loads the run and needs none of them.

use std::collections::VecDeque;

use runcast_common::presence::run_update::RunUpdate;
use uuid::Uuid;

/// Updates that are kept for viewers that are slow to take them.
const MAX_UPDATES: usize = 16;

/// The last updates of a run.
#[derive(Debug, Default)]
pub(crate) struct LatestUpdates {
    updates: VecDeque<RunUpdate>,
    /// The number of the last one.
    newest: u64,
}

impl LatestUpdates {
    /// Keeps what was published on the channel of `run`. Returns it if it is an update of it.
    pub(crate) fn push(&mut self, run: Uuid, message: &[u8]) -> Option<&RunUpdate> {
        let update = serde_json::from_slice::<RunUpdate>(message).ok()?;
        if update.run != run {
            return None;
        }
        if self.updates.len() == MAX_UPDATES {
            self.updates.pop_front();
        }
        self.updates.push_back(update);
        self.newest += 1;
        self.updates.back()
    }

    /// The number of the newest update; 0 before the first.
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }

    /// The updates with a number above this one, as far as they are kept, oldest first.
    pub(crate) fn after(&self, number: u64) -> Vec<RunUpdate> {
        let count = usize::try_from(self.newest.saturating_sub(number)).unwrap_or(MAX_UPDATES);
        let skip = self.updates.len().saturating_sub(count);
        self.updates.iter().skip(skip).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(missing: u64) -> String {
        let run = Uuid::nil();
        format!(
            r#"{{"kind":"state","run":"{run}","status":"lost","ended":false,"sealed":false,"missing":{missing}}}"#
        )
    }

    #[test]
    fn the_newest_updates_are_kept_in_order() {
        let mut updates = LatestUpdates::default();
        let run = Uuid::nil();
        assert!(updates.push(run, b"nonsense").is_none());
        let of_another = updates.push(Uuid::max(), message(1).as_bytes());
        assert!(of_another.is_none());
        for number in 1..=20 {
            assert!(updates.push(run, message(number).as_bytes()).is_some());
        }
        let after = |number| -> Vec<u64> {
            let updates = updates.after(number);
            updates.iter().map(|update| update.missing).collect()
        };
        assert_eq!(updates.newest(), 20);
        assert_eq!(after(18), [19, 20]);
        assert_eq!(after(20), [0; 0]);
        assert_eq!(after(0).len(), MAX_UPDATES);
    }
}
