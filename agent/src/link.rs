//! One connection to Redis with several calls of the append script in flight.
//!
//! Redis answers in the order of the calls, so the calls stand in a list and only the oldest one is
//! waited for. A call is on its way as soon as [`Link::send`] returns: its future has then been
//! polled once, which hands the bytes to the connection's driver.
//!
//! Bounds: [`WINDOW`] calls. Time: an answer every [`REDIS_DEADLINE`] while any is owed, however
//! many calls are in flight; else the connection counts as half open.

use std::collections::VecDeque;

use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::REDIS_DEADLINE;
use runcast_common::scripts::{Append, Appended, load_append};
use tokio::time::{Instant, timeout};

use crate::ledger::Asked;

/// Calls that may be in flight. Two hide the round trip within a cluster, eight still do at 10 ms
/// distance for a stream of 10 MB/s, and they hold no more than 2 MiB.
pub(crate) const WINDOW: usize = 8;

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// It could not be made.
    #[error(transparent)]
    Connect(#[from] RedisFailure),
    /// A call failed on it.
    #[error("an append failed: {0}")]
    Call(RedisFailure),
}

/// An answer, and what it answers.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What was asked.
    pub(crate) asked: Asked,
    /// False if [`Link::forget`] was called after the call.
    pub(crate) counts: bool,
    /// What the server said, which may be an error of its own.
    pub(crate) result: Result<Appended, RedisError>,
}

struct Call {
    asked: Asked,
    counts: bool,
    sent: Instant,
    reply: BoxFuture<'static, Result<Value, RedisError>>,
}

/// One connection and what it owes answers to.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    redis: Redis,
    calls: VecDeque<Call>,
    last_answer: Instant,
}

impl Link {
    /// Connects to the server that holds the run, and makes it know the script.
    pub(crate) async fn open(redis: &Redis, keys: &RunKeys) -> Result<Self, LinkError> {
        let mut link = Self {
            connection: redis.dedicated(keys.slot).await?,
            redis: redis.clone(),
            calls: VecDeque::with_capacity(WINDOW + 1),
            last_answer: Instant::now(),
        };
        link.load_script().await?;
        Ok(link)
    }

    /// Makes the server know the script, after it said `NOSCRIPT`.
    pub(crate) async fn load_script(&mut self) -> Result<(), LinkError> {
        match timeout(REDIS_DEADLINE, load_append(&mut self.connection)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_elapsed) => Err(self.silent()),
        }
    }

    /// Why the link is given up after an error that a call was answered with.
    pub(crate) fn failed(&self, error: RedisError) -> LinkError {
        LinkError::Call(self.redis.failed(error))
    }

    fn silent(&self) -> LinkError {
        LinkError::Call(self.redis.silent(REDIS_DEADLINE))
    }

    /// Calls that are not answered yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Puts one call on its way.
    pub(crate) fn send(&mut self, keys: &RunKeys, append: &Append<'_>) {
        let asked = match append.count {
            0 => Asked::State,
            _ => Asked::Append {
                first: append.first,
            },
        };
        let command = append.command(keys);
        let mut connection = self.connection.clone();
        // Unconstrained: a first poll that the scheduler turned away would let a later call overtake.
        let mut reply: BoxFuture<'static, Result<Value, RedisError>> =
            Box::pin(tokio::task::unconstrained(async move {
                command.query_async(&mut connection).await
            }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let reply = match reply.as_mut().poll(&mut context) {
            std::task::Poll::Pending => reply,
            std::task::Poll::Ready(result) => Box::pin(std::future::ready(result)),
        };
        self.calls.push_back(Call {
            asked,
            counts: true,
            sent: Instant::now(),
            reply,
        });
    }

    /// The answers to what is in flight shall not count.
    pub(crate) fn forget(&mut self) {
        self.calls.iter_mut().for_each(|call| call.counts = false);
    }

    /// Waits for the oldest answer that is owed; forever, if none is. Can be dropped at any time.
    pub(crate) async fn answer(&mut self) -> Result<Answer, LinkError> {
        let Some(call) = self.calls.front_mut() else {
            return std::future::pending().await;
        };
        let deadline = call.sent.max(self.last_answer) + REDIS_DEADLINE;
        let answered = tokio::time::timeout_at(deadline, &mut call.reply).await;
        let (asked, counts) = (call.asked, call.counts);
        let Ok(result) = answered else {
            return Err(self.silent());
        };
        self.calls.pop_front();
        self.last_answer = Instant::now();
        Ok(Answer {
            asked,
            counts,
            result: result.and_then(Appended::parse),
        })
    }
}
