//! What changed about a watched run without being an event of it: it is lost, or found again.
//!
//! The last [`MOST`] are kept, each with a number, so that a viewer that was told of one is told only of newer ones. A
//! viewer that comes later asks for the run and needs none of them.

use std::collections::VecDeque;

use runcast_common::presence::run_update::RunUpdate;

/// Updates that are kept for viewers that are slow to take them.
const MOST: usize = 16;

/// The last updates of a run.
#[derive(Debug, Default)]
pub(super) struct LatestUpdates {
    kept: VecDeque<RunUpdate>,
    /// The number of the last one.
    newest: u64,
}

impl LatestUpdates {
    /// Takes in what was published on the run's channel; true if it is an update.
    pub(super) fn take(&mut self, message: &[u8]) -> bool {
        let Ok(update) = serde_json::from_slice(message) else {
            return false;
        };
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(update);
        self.newest += 1;
        true
    }

    /// The number of the newest; 0 before the first.
    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }

    /// Those with a number above this one that are still kept, oldest first.
    pub(super) fn after(&self, number: u64) -> Vec<RunUpdate> {
        let count = usize::try_from(self.newest.saturating_sub(number)).unwrap_or(MOST);
        let skip = self.kept.len().saturating_sub(count);
        self.kept.iter().skip(skip).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(missing: u64) -> String {
        let run = uuid::Uuid::nil();
        format!(
            r#"{{"kind":"state","run":"{run}","status":"lost","ended":false,"sealed":false,"missing":{missing}}}"#
        )
    }

    #[test]
    fn the_newest_are_kept_in_their_order() {
        let mut states = LatestUpdates::default();
        assert!(!states.take(b"nonsense"));
        for number in 1..=20 {
            assert!(states.take(message(number).as_bytes()));
        }
        let after = |number| -> Vec<u64> {
            let states = states.after(number);
            states.iter().map(|update| update.missing).collect()
        };
        assert_eq!(states.newest(), 20);
        assert_eq!(after(18), [19, 20]);
        assert_eq!(after(20), [0; 0]);
        assert_eq!(after(0).len(), MOST);
    }
}
