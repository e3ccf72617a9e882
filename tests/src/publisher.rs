//! A producer without the agent: it calls the append script itself, with the rights of an agent, so
//! that a story controls the content of each entry.

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use runcast_common::protocol::encoding::{Body, MAX_BODY_BYTES};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::scripts::{Append, AppendAs, AppendOutcome, AppendReply, Cap};
use uuid::Uuid;

/// One producer of one run.
#[derive(Debug)]
pub struct Publisher {
    connection: MultiplexedConnection,
    keys: RunKeys,
    /// Its id.
    pub producer: Uuid,
    /// The highest seq that Postgres holds, and the highest that Redis has acknowledged.
    base: u64,
    acked: u64,
}

impl Publisher {
    /// A new producer of `run`.
    pub fn new(connection: MultiplexedConnection, keys: &Keys, run: Uuid) -> Self {
        Self {
            connection,
            keys: keys.run(run),
            producer: Uuid::now_v7(),
            base: 0,
            acked: 0,
        }
    }

    /// Appends these lines as one entry and returns the id of its last event.
    pub async fn publish(&mut self, lines: &[Vec<u8>]) -> EventId {
        let appended = self.publish_if_room(lines).await;
        appended.expect("the append script answers")
    }

    /// The same; fails if Redis has no room for the entry. It may be tried again then.
    pub async fn publish_if_room(&mut self, lines: &[Vec<u8>]) -> Result<EventId, String> {
        let mut body = Vec::new();
        for line in lines {
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        let appended = self.append(lines.len() as u64, &body).await;
        let appended = appended.map_err(|error| error.to_string())?;
        if appended.outcome == AppendOutcome::Full {
            return Err("the run is full".to_owned());
        }
        let expected = self.acked + lines.len() as u64;
        assert_eq!(appended.outcome, AppendOutcome::Stored { stored: expected });
        self.acked = expected;
        self.base = self.base.max(appended.durable);
        Ok(appended.last)
    }

    /// Tries to append one line and returns the outcome. A refused line may be tried again.
    pub async fn try_append(&mut self, line: &[u8]) -> AppendOutcome {
        let appended = self.append(1, &[line, b"\n"].concat()).await;
        let outcome = appended.expect("the append script answers").outcome;
        if let AppendOutcome::Stored { stored } = outcome {
            self.acked = stored;
        }
        outcome
    }

    async fn append(&mut self, count: u64, body: &[u8]) -> Result<AppendReply, RedisError> {
        let append = Append {
            producer: self.producer,
            producer_epoch: 1,
            base: self.base,
            acked: self.acked,
            first: self.acked + 1,
            count,
            // A longer body would not be unpacked, and the story wants its lines to be read and
            // rejected.
            body: if body.len() > MAX_BODY_BYTES {
                Body::Plain(body)
            } else {
                Body::compress(body)
            },
            cap: Cap::default(),
        };
        let connection = &mut self.connection;
        append.call(&self.keys, AppendAs::RunUser, connection).await
    }
}
