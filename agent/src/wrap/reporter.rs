//! Publishes how far the command has come, at most every [`EVERY`], and always the last of it.
//!
//! A bar that redraws itself says a thousand times a second what a reader wants to know a few times;
//! and when it stands still, the last one said is the one that counts. So one task holds the newest of
//! each label and publishes it when its time has come.
//!
//! Data: at most [`MAX_LABELS`] messages; of more labels the oldest is given up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runcast_common::protocol::event::{Kind, Progress};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::outlet::STALL;
use super::recognise::progress::Mark;
use crate::publisher::Publisher;
use crate::say;

/// Shortest time between two messages of one label.
const EVERY: Duration = Duration::from_millis(250);

/// Labels that are told of at the same time.
const MAX_LABELS: usize = 4;

/// Longest wait for the last messages to be published.
const LAST: Duration = Duration::from_secs(2);

/// Takes in what is said of progress.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What progresses, where that was not said.
    command: String,
    newest: Mutex<Newest>,
    arrived: Notify,
    over: CancellationToken,
}

#[derive(Debug, Default)]
struct Newest {
    /// By label, those that wait to be told.
    waiting: Vec<Told>,
    /// By label, those that were told last.
    told: Vec<Told>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    label: String,
    percent: u64,
    state: Option<&'static str>,
}

impl Shared {
    /// Whatever a panic leaves here is a list of messages.
    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newest {
    fn take_in(&mut self, mark: Mark, command: &str) {
        let label = mark.label.unwrap_or_else(|| command.to_owned());
        let same = |told: &&Told| told.label == label;
        let known = self.waiting.iter().find(same);
        let known = known.or_else(|| self.told.iter().find(same));
        let told = Told {
            percent: mark
                .percent
                .or(known.map(|known| known.percent))
                .unwrap_or(0),
            state: mark.state,
            label,
        };
        if known != Some(&told) {
            replace(&mut self.waiting, told);
        }
    }
}

/// Puts it behind those of other labels, in place of the one of its own.
fn replace(all: &mut Vec<Told>, new: Told) {
    all.retain(|one| one.label != new.label);
    if all.len() >= MAX_LABELS {
        all.remove(0);
    }
    all.push(new);
}

impl Reporter {
    /// Starts the task; to be ended by [`finish`](Self::finish).
    pub(crate) fn start(publisher: Publisher, command: String) -> (Self, JoinHandle<()>) {
        let shared = Arc::new(Shared {
            command,
            newest: Mutex::default(),
            arrived: Notify::new(),
            over: CancellationToken::new(),
        });
        let task = tokio::spawn(report(publisher, Arc::clone(&shared)));
        (Self { shared }, task)
    }

    pub(crate) fn tell(&self, mark: Mark) {
        self.shared.lock().take_in(mark, &self.shared.command);
        self.shared.arrived.notify_one();
    }

    /// Publishes what waits, and ends the task.
    pub(crate) async fn finish(self, mut task: JoinHandle<()>) {
        self.shared.over.cancel();
        if timeout(LAST, &mut task).await.is_err() {
            task.abort();
            say(format_args!(
                "the last progress was not published: time ran out"
            ));
        }
    }
}

async fn report(publisher: Publisher, shared: Arc<Shared>) {
    loop {
        let is_over = shared.over.is_cancelled();
        let waiting = std::mem::take(&mut shared.lock().waiting);
        for told in waiting {
            let progress = Progress {
                label: &told.label,
                current: told.percent,
                total: Some(100),
                state: told.state,
            };
            let published = timeout(STALL, publisher.publish(Kind::Progress, &progress)).await;
            match published {
                Ok(Ok(_seq)) => replace(&mut shared.lock().told, told),
                // The next one says more than this one would.
                Err(_elapsed) => tracing::debug!("progress was not published: the queue is full"),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "progress is not published any more");
                    return;
                }
            }
        }
        if is_over {
            return;
        }
        tokio::select! {
            () = shared.arrived.notified() => {}
            () = shared.over.cancelled() => continue,
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            () = shared.over.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(label: Option<&str>, percent: Option<u64>, state: Option<&'static str>) -> Mark {
        Mark {
            label: label.map(str::to_owned),
            percent,
            state,
        }
    }

    #[test]
    fn of_each_label_the_newest_waits_and_what_is_known_is_not_said_again() {
        let mut newest = Newest::default();
        newest.take_in(mark(None, Some(1), None), "cargo");
        newest.take_in(mark(Some("upload"), Some(3), None), "cargo");
        newest.take_in(mark(None, Some(2), None), "cargo");
        newest.take_in(mark(None, None, Some("error")), "cargo");
        let said = |all: &[Told]| -> Vec<(String, u64)> {
            let of = |told: &Told| (told.label.clone(), told.percent);
            all.iter().map(of).collect()
        };
        let expected = [("upload".to_owned(), 3), ("cargo".to_owned(), 2)];
        assert_eq!(said(&newest.waiting), expected);
        newest.told = std::mem::take(&mut newest.waiting);
        newest.take_in(mark(None, Some(2), Some("error")), "cargo");
        assert_eq!(newest.waiting, []);
        for label in ["a", "b", "c", "d", "e"] {
            newest.take_in(mark(Some(label), Some(1), None), "cargo");
        }
        assert_eq!(newest.waiting.len(), MAX_LABELS);
    }
}
