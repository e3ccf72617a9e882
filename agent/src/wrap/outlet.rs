//! Puts events into the publisher's queue, by the rule that Runcast must not break the job it watches.
//!
//! While the queue is full the command waits, as it would for a slow terminal, but no longer than
//! [`STALL`]. Then events are dropped, counted, until there is room again; the count goes into the
//! stream as a `gap` event, so that viewers and Postgres show what is missing.

use std::time::Duration;

use runcast_common::protocol::event::{Gap, Kind};
use serde::Serialize;
use tokio::time::timeout;

use crate::publisher::{PublishError, Publisher};
use crate::say;

/// Longest wait of the command for room in the queue. Longer than a restart of Redis or a failover
/// takes; shorter than the timeouts of most jobs.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// Events that are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl Dropped {
    pub(crate) const fn add(&mut self, more: Self) {
        self.events += more.events;
        self.bytes += more.bytes;
    }

    /// The event that tells of it.
    pub(crate) const fn gap(self, reason: &'static str) -> Gap<'static> {
        Gap {
            count: Some(self.events),
            bytes: self.bytes,
            reason,
            after: None,
            next: None,
        }
    }
}

/// The way of one stream into the publisher; without a publisher it leads nowhere.
#[derive(Debug)]
pub(crate) struct Outlet {
    publisher: Option<Publisher>,
    name: &'static str,
    stall: Duration,
    /// Since the last gap event.
    dropped: Dropped,
}

impl Outlet {
    pub(crate) const fn new(publisher: Option<Publisher>, name: &'static str) -> Self {
        Self {
            publisher,
            name,
            stall: STALL,
            dropped: Dropped {
                events: 0,
                bytes: 0,
            },
        }
    }

    /// False if nothing that is put in comes out anywhere.
    pub(crate) const fn is_open(&self) -> bool {
        self.publisher.is_some()
    }

    /// Publishes an event that carries so many bytes of text, or counts it as dropped.
    pub(crate) async fn put(&mut self, kind: Kind, payload: &impl Serialize, bytes: usize) {
        let Some(publisher) = self.publisher.clone() else {
            return;
        };
        let result = match self.tell_gap(&publisher) {
            // Events after the gap must not overtake it, nor may the command stall once more.
            Err(error) => Err(error),
            Ok(()) => match publisher.try_publish(kind, payload) {
                Err(PublishError::Full) => {
                    let publish = publisher.publish(kind, payload);
                    timeout(self.stall, publish)
                        .await
                        .unwrap_or(Err(PublishError::Full))
                }
                result => result,
            },
        };
        if let Err(error) = result {
            self.drop_event(bytes, &error);
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
        publisher.try_publish(Kind::Gap, &self.dropped.gap("overflow"))?;
        self.dropped = Dropped::default();
        Ok(())
    }

    fn drop_event(&mut self, bytes: usize, error: &PublishError) {
        if self.dropped == Dropped::default() {
            let name = self.name;
            say(format_args!("not publishing {name} for now: {error}"));
        }
        if let PublishError::Stopped(_) | PublishError::Closed = error {
            self.publisher = None;
        }
        self.dropped.add(Dropped {
            events: 1,
            bytes: bytes as u64,
        });
    }
}

#[cfg(test)]
mod tests {
    use runcast_common::protocol::event::Text;
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
        let mut outlet = Outlet {
            stall: Duration::from_millis(20),
            ..Outlet::new(Some(publisher), "stdout")
        };
        for chunk in [&b"one\n"[..], b"two\n"] {
            let payload = Text::from_chunk(None, chunk);
            outlet.put(Kind::Output, &payload, chunk.len()).await;
        }
        let dropped = Dropped {
            events: 2,
            bytes: 8,
        };
        assert_eq!(outlet.finish(), dropped);
    }
}
