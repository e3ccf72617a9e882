//! A producer without the agent: it calls the append script itself, with the rights of an agent, so that
//! a story decides what stands in one entry.

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use runcast_common::protocol::encoding::{Body, MAX_BODY_BYTES};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::scripts::{Append, Appended, Cap, Outcome};
use uuid::Uuid;

/// One producer of one run.
#[derive(Debug)]
pub struct Publisher {
    connection: MultiplexedConnection,
    keys: RunKeys,
    /// Its id.
    pub producer: Uuid,
    /// Highest seq that Postgres holds, and highest that Redis has acknowledged.
    base: u64,
    acked: u64,
}

impl Publisher {
    /// A new producer of `run`.
    #[must_use]
    pub fn new(connection: MultiplexedConnection, keys: &Keys, run: Uuid) -> Self {
        Self {
            connection,
            keys: keys.run(run),
            producer: Uuid::now_v7(),
            base: 0,
            acked: 0,
        }
    }

    /// Appends these lines as one entry and gives the id of its last event.
    ///
    /// # Panics
    /// If the script refuses it.
    pub async fn publish(&mut self, lines: &[Vec<u8>]) -> EventId {
        let appended = self.publish_if_room(lines).await;
        appended.expect("the append script answers")
    }

    /// The same, with an error where Redis has no room for it; then it may be tried again.
    ///
    /// # Errors
    /// What Redis said.
    ///
    /// # Panics
    /// If the script refuses it for another reason.
    pub async fn publish_if_room(&mut self, lines: &[Vec<u8>]) -> Result<EventId, String> {
        let mut body = Vec::new();
        for line in lines {
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        let appended = self.append(lines.len() as u64, &body).await;
        let appended = appended.map_err(|error| error.to_string())?;
        if appended.outcome == Outcome::Full {
            return Err("the run is full".to_owned());
        }
        let expected = self.acked + lines.len() as u64;
        assert_eq!(appended.outcome, Outcome::Stored { stored: expected });
        self.acked = expected;
        self.base = self.base.max(appended.durable);
        Ok(appended.last)
    }

    /// Tries to append such an entry, and says what became of it; what is refused may be tried again.
    ///
    /// # Panics
    /// If the script does not answer.
    pub async fn try_append(&mut self, line: &[u8]) -> Outcome {
        let appended = self.append(1, &[line, b"\n"].concat()).await;
        let outcome = appended.expect("the append script answers").outcome;
        if let Outcome::Stored { stored } = outcome {
            self.acked = stored;
        }
        outcome
    }

    async fn append(&mut self, count: u64, body: &[u8]) -> Result<Appended, RedisError> {
        let append = Append {
            producer: self.producer,
            producer_epoch: 1,
            base: self.base,
            acked: self.acked,
            first: self.acked + 1,
            count,
            // A longer one would not be unpacked: it is to be read, and its lines judged.
            body: if body.len() > MAX_BODY_BYTES {
                Body::Plain(body)
            } else {
                Body::packed(body)
            },
            cap: Cap::default(),
        };
        append.call(&self.keys, &mut self.connection).await
    }
}
