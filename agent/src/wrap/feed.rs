//! One stream of the wrapped command on its way into the publisher, by the rule that Runcast must
//! not break the job it watches.
//!
//! While the queue is full the command waits, as it would for a slow terminal, but no longer than
//! [`STALL`]. Then its chunks are dropped, counted, until there is room again; the count goes into
//! the stream as a `gap` event, so that viewers and Postgres show what is missing.

use std::time::Duration;

use runcast_common::event::{Gap, Kind, Text};
use tokio::time::timeout;

use crate::publisher::{PublishError, Publisher};
use crate::say;

/// Longest wait of the command for room in the queue. Longer than a restart of Redis or a failover
/// takes; shorter than the timeouts of most jobs.
const STALL: Duration = Duration::from_secs(30);

/// Which stream it is, and how its chunks are published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
}

/// The command's standard output.
pub(crate) const STDOUT: Source = Source {
    kind: Kind::Output,
    name: "stdout",
};

/// The command's standard error.
pub(crate) const STDERR: Source = Source {
    kind: Kind::Log,
    name: "stderr",
};

/// What was dropped since the last gap event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// One stream on its way into the publisher; without a publisher it leads nowhere.
#[derive(Debug)]
pub(crate) struct Feed {
    publisher: Option<Publisher>,
    source: Source,
    stall: Duration,
    dropped: Dropped,
}

impl Feed {
    pub(crate) const fn new(publisher: Option<Publisher>, source: Source) -> Self {
        Self {
            publisher,
            source,
            stall: STALL,
            dropped: Dropped {
                events: 0,
                bytes: 0,
            },
        }
    }

    /// Publishes a chunk, or counts it as dropped.
    pub(crate) async fn publish(&mut self, chunk: &[u8]) {
        let Some(publisher) = self.publisher.clone() else {
            return;
        };
        let payload = Text::from_chunk(Some(self.source.name), chunk);
        let result = match self.tell_gap(&publisher) {
            // Events after the gap must not overtake it, nor may the command stall once more.
            Err(error) => Err(error),
            Ok(()) => match publisher.try_publish(self.source.kind, &payload) {
                Err(PublishError::Full) => {
                    let publish = publisher.publish(self.source.kind, &payload);
                    timeout(self.stall, publish)
                        .await
                        .unwrap_or(Err(PublishError::Full))
                }
                result => result,
            },
        };
        if let Err(error) = result {
            self.drop_chunk(chunk, &error);
        }
    }

    /// Puts the gap into the stream if there is one, and gives what could not be told.
    pub(crate) fn finish(mut self) -> Dropped {
        if let Some(publisher) = self.publisher.clone() {
            // What fails stays in the count.
            drop(self.tell_gap(&publisher));
        }
        self.dropped
    }

    fn tell_gap(&mut self, publisher: &Publisher) -> Result<(), PublishError> {
        if self.dropped == Dropped::default() {
            return Ok(());
        }
        let gap = Gap {
            count: Some(self.dropped.events),
            bytes: self.dropped.bytes,
            reason: "overflow",
            after: None,
            next: None,
        };
        publisher.try_publish(Kind::Gap, &gap)?;
        self.dropped = Dropped::default();
        Ok(())
    }

    fn drop_chunk(&mut self, chunk: &[u8], error: &PublishError) {
        if self.dropped == Dropped::default() {
            let name = self.source.name;
            say(format_args!("not publishing {name} for now: {error}"));
        }
        if let PublishError::Stopped(_) | PublishError::Closed = error {
            self.publisher = None;
        }
        self.dropped.events += 1;
        self.dropped.bytes += chunk.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::publisher::{Options, Target};

    #[tokio::test]
    async fn a_full_queue_delays_the_command_only_so_long_and_the_rest_is_counted() {
        let target = Target {
            redis: "redis://127.0.0.1:1".parse().expect("an address"),
            prefix: String::new(),
            run: Uuid::now_v7(),
            variation: 0,
        };
        let options = Options {
            backlog_bytes: 0,
            ..Options::default()
        };
        let publisher = Publisher::start(&target, options).expect("started");
        let payload = Text::from_chunk(None, b"x");
        while publisher.try_publish(Kind::Output, &payload).is_ok() {}
        let mut feed = Feed {
            stall: Duration::from_millis(20),
            ..Feed::new(Some(publisher), STDOUT)
        };
        for chunk in [&b"one\n"[..], b"two\n"] {
            feed.publish(chunk).await;
        }
        let dropped = Dropped {
            events: 2,
            bytes: 8,
        };
        assert_eq!(feed.finish(), dropped);
    }
}
