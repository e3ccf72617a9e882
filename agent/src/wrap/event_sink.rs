//! Publishes the events of one stream under the rule that Runcast must not break the job that it
//! watches.
//!
//! While the queue is full the command waits, as it would for a slow terminal, but no longer than
//! [`MAX_STALL`]. After that events are dropped and counted until there is room again. A `gap`
//! event with the count then shows viewers and Postgres what is missing.

use std::time::Duration;

use runcast_common::protocol::event::{Gap, Kind};
use runcast_publisher::{PublishError, Publisher};
use serde::Serialize;
use tokio::time::timeout;

use crate::console::print_message;

/// Longest time that a full queue delays the command. Longer than a restart of Redis or a failover
/// takes, shorter than the timeouts of most jobs.
pub(crate) const MAX_STALL: Duration = Duration::from_secs(30);

/// Events that were not published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DroppedEvents {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl DroppedEvents {
    pub(crate) const fn add(&mut self, more: Self) {
        self.events += more.events;
        self.bytes += more.bytes;
    }

    /// The `gap` event for them.
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

/// Publishes the events of one stream; without a publisher it discards them.
#[derive(Debug)]
pub(crate) struct EventSink {
    publisher: Option<Publisher>,
    name: &'static str,
    max_stall: Duration,
    /// DroppedEvents since the last gap event.
    dropped: DroppedEvents,
}

impl EventSink {
    pub(crate) const fn new(publisher: Option<Publisher>, name: &'static str) -> Self {
        Self {
            publisher,
            name,
            max_stall: MAX_STALL,
            dropped: DroppedEvents {
                events: 0,
                bytes: 0,
            },
        }
    }

    /// False if every event is discarded.
    pub(crate) const fn is_open(&self) -> bool {
        self.publisher.is_some()
    }

    /// Publishes an event with so many bytes of text, or counts it as dropped.
    pub(crate) async fn publish(&mut self, kind: Kind, payload: &impl Serialize, bytes: usize) {
        let Some(publisher) = self.publisher.clone() else {
            return;
        };
        let result = match self.publish_gap(&publisher) {
            // Events must not overtake the gap, and the command must not be delayed again.
            Err(error) => Err(error),
            Ok(()) => match publisher.try_publish(kind, payload) {
                Err(PublishError::Full) => {
                    let publish = publisher.publish(kind, payload);
                    timeout(self.max_stall, publish)
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

    /// Publishes the gap, if there is one. Returns what could not be published.
    pub(crate) fn finish(mut self) -> DroppedEvents {
        if let Some(publisher) = self.publisher.clone() {
            // If that fails, the events stay counted.
            drop(self.publish_gap(&publisher));
        }
        self.dropped
    }

    fn publish_gap(&mut self, publisher: &Publisher) -> Result<(), PublishError> {
        if self.dropped == DroppedEvents::default() {
            return Ok(());
        }
        publisher.try_publish(Kind::Gap, &self.dropped.gap("overflow"))?;
        self.dropped = DroppedEvents::default();
        Ok(())
    }

    fn drop_event(&mut self, bytes: usize, error: &PublishError) {
        if self.dropped == DroppedEvents::default() {
            let name = self.name;
            print_message(format_args!(
                "{name} is not published at the moment: {error}"
            ));
        }
        if let PublishError::Stopped(_) | PublishError::Closed = error {
            self.publisher = None;
        }
        self.dropped.add(DroppedEvents {
            events: 1,
            bytes: bytes as u64,
        });
    }
}

#[cfg(test)]
mod tests {
    use runcast_common::protocol::event::Text;
    use runcast_publisher::{Options, Target};
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_delays_the_command_briefly_and_then_drops_are_counted() {
        let target = Target::in_redis(
            "redis://127.0.0.1:1".parse().expect("an address"),
            "",
            Uuid::now_v7(),
            0,
        );
        let options = Options {
            buffer_bytes: 0,
            ..Options::default()
        };
        let publisher = Publisher::start(&target, options).expect("started");
        let payload = Text::from_chunk(None, b"x");
        while publisher.try_publish(Kind::Output, &payload).is_ok() {}
        let mut sink = EventSink {
            max_stall: Duration::from_millis(20),
            ..EventSink::new(Some(publisher), "stdout")
        };
        for chunk in [&b"one\n"[..], b"two\n"] {
            let payload = Text::from_chunk(None, chunk);
            sink.publish(Kind::Output, &payload, chunk.len()).await;
        }
        let dropped = DroppedEvents {
            events: 2,
            bytes: 8,
        };
        assert_eq!(sink.finish(), dropped);
    }
}
