//! Publishes the command's progress, at most once per [`MIN_INTERVAL`] and label, and always the
//! last message.
//!
//! A progress bar that redraws itself reports a thousand times a second what a reader needs a few
//! times; and when it stops, the last message is the one that counts. So one task keeps the newest
//! message per label and publishes it when it is due.
//!
//! Data: at most [`MAX_LABELS`] messages; beyond that the oldest label is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runcast_common::protocol::event::{Kind, Progress};
use runcast_publisher::Publisher;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::detect::ProgressMark;
use super::event_sink::MAX_STALL;
use crate::console::print_message;

/// Shortest time between two messages of one label.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Labels that are reported at the same time.
const MAX_LABELS: usize = 4;

/// Longest wait for the last messages to be published.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Accepts progress marks and publishes them from a task.
#[derive(Debug, Clone)]
pub(crate) struct ProgressReporter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The label of marks without one.
    command: String,
    messages: Mutex<Messages>,
    arrived: Notify,
    over: CancellationToken,
}

#[derive(Debug, Default)]
struct Messages {
    /// Messages to publish, one per label.
    waiting: Vec<ProgressMessage>,
    /// The last published message of each label.
    published: Vec<ProgressMessage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ProgressMessage {
    label: String,
    percent: u64,
    state: Option<&'static str>,
}

impl Shared {
    /// A poisoned lock is fine: a panic leaves a valid list of messages.
    fn lock(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Messages {
    fn add(&mut self, mark: ProgressMark, command: &str) {
        let label = mark.label.unwrap_or_else(|| command.to_owned());
        let has_label = |message: &&ProgressMessage| message.label == label;
        let current = self.waiting.iter().find(has_label);
        let current = current.or_else(|| self.published.iter().find(has_label));
        let message = ProgressMessage {
            percent: mark
                .percent
                .or(current.map(|current| current.percent))
                .unwrap_or(0),
            state: mark.state,
            label,
        };
        if current != Some(&message) {
            replace(&mut self.waiting, message);
        }
    }
}

/// Replaces the message of the same label, and moves it to the end.
fn replace(all: &mut Vec<ProgressMessage>, new: ProgressMessage) {
    all.retain(|one| one.label != new.label);
    if all.len() >= MAX_LABELS {
        all.remove(0);
    }
    all.push(new);
}

impl ProgressReporter {
    /// Starts the task. End it with [`finish`](Self::finish).
    pub(crate) fn start(publisher: Publisher, command: String) -> (Self, JoinHandle<()>) {
        let shared = Arc::new(Shared {
            command,
            messages: Mutex::default(),
            arrived: Notify::new(),
            over: CancellationToken::new(),
        });
        let task = tokio::spawn(publish_messages(publisher, Arc::clone(&shared)));
        (Self { shared }, task)
    }

    pub(crate) fn report(&self, mark: ProgressMark) {
        self.shared.lock().add(mark, &self.shared.command);
        self.shared.arrived.notify_one();
    }

    /// Publishes what waits, and ends the task.
    pub(crate) async fn finish(self, mut task: JoinHandle<()>) {
        self.shared.over.cancel();
        if timeout(FINISH_TIMEOUT, &mut task).await.is_err() {
            task.abort();
            print_message(format_args!(
                "the last progress was not published: time ran out"
            ));
        }
    }
}

async fn publish_messages(publisher: Publisher, shared: Arc<Shared>) {
    loop {
        let is_over = shared.over.is_cancelled();
        let waiting = std::mem::take(&mut shared.lock().waiting);
        for message in waiting {
            let progress = Progress {
                label: &message.label,
                current: message.percent,
                total: Some(100),
                state: message.state,
            };
            let result = timeout(MAX_STALL, publisher.publish(Kind::Progress, &progress)).await;
            match result {
                Ok(Ok(_seq)) => replace(&mut shared.lock().published, message),
                // The next message says more than this one would.
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
            () = sleep(MIN_INTERVAL) => {}
            () = shared.over.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(
        label: Option<&str>,
        percent: Option<u64>,
        state: Option<&'static str>,
    ) -> ProgressMark {
        ProgressMark {
            label: label.map(str::to_owned),
            percent,
            state,
        }
    }

    #[test]
    fn the_newest_message_per_label_waits_and_repeats_are_dropped() {
        let mut messages = Messages::default();
        messages.add(mark(None, Some(1), None), "cargo");
        messages.add(mark(Some("upload"), Some(3), None), "cargo");
        messages.add(mark(None, Some(2), None), "cargo");
        messages.add(mark(None, None, Some("error")), "cargo");
        let summary = |all: &[ProgressMessage]| -> Vec<(String, u64)> {
            let of = |message: &ProgressMessage| (message.label.clone(), message.percent);
            all.iter().map(of).collect()
        };
        let expected = [("upload".to_owned(), 3), ("cargo".to_owned(), 2)];
        assert_eq!(summary(&messages.waiting), expected);
        messages.published = std::mem::take(&mut messages.waiting);
        messages.add(mark(None, Some(2), Some("error")), "cargo");
        assert_eq!(messages.waiting, []);
        for label in ["a", "b", "c", "d", "e"] {
            messages.add(mark(Some(label), Some(1), None), "cargo");
        }
        assert_eq!(messages.waiting.len(), MAX_LABELS);
    }
}
