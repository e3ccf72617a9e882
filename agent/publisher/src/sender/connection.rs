//! One connection to Redis with several calls of the append script in flight.
//!
//! Redis replies in the order of the calls, so the calls form a queue and only the oldest one is
//! awaited. [`AppendConnection::send`] polls the call's future once, which hands the bytes to the
//! connection's driver: the call is on its way when `send` returns.
//!
//! Bounds: [`MAX_IN_FLIGHT_CALLS`]. Time: while calls are in flight, at least one reply per
//! [`REDIS_DEADLINE`], however many there are; otherwise the connection counts as half open.

use std::collections::VecDeque;

use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::REDIS_DEADLINE;
use runcast_common::scripts::{Append, AppendReply, load_append};
use tokio::time::{Instant, timeout};

use crate::retransmit::send_window::{MAX_IN_FLIGHT_CALLS, Request};

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Connect(#[from] RedisFailure),
    #[error("an append failed: {0}")]
    Call(RedisFailure),
}

/// A reply and the request that it answers.
#[derive(Debug)]
pub(super) struct RequestReply {
    pub(super) request: Request,
    /// False if [`AppendConnection::supersede_calls`] was called after the request was sent.
    pub(super) is_current: bool,
    /// What Redis replied, which may be an error.
    pub(super) result: Result<AppendReply, RedisError>,
}

struct PendingCall {
    request: Request,
    is_current: bool,
    sent_at: Instant,
    reply: BoxFuture<'static, Result<Value, RedisError>>,
}

/// A connection and its unanswered calls.
pub(super) struct AppendConnection {
    connection: MultiplexedConnection,
    redis: Redis,
    calls: VecDeque<PendingCall>,
    last_reply_at: Instant,
}

impl AppendConnection {
    /// Connects to the server that holds the run, and loads the append script there.
    pub(super) async fn open(redis: &Redis, keys: &RunKeys) -> Result<Self, ConnectionError> {
        let mut opened = Self {
            connection: redis.dedicated(keys.slot).await?,
            redis: redis.clone(),
            calls: VecDeque::with_capacity(MAX_IN_FLIGHT_CALLS + 1),
            last_reply_at: Instant::now(),
        };
        opened.load_script().await?;
        Ok(opened)
    }

    /// Loads the append script into the server.
    pub(super) async fn load_script(&mut self) -> Result<(), ConnectionError> {
        match timeout(REDIS_DEADLINE, load_append(&mut self.connection)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_elapsed) => Err(self.silent()),
        }
    }

    /// The error for a connection that is closed because a call failed.
    pub(super) fn failed(&self, error: RedisError) -> ConnectionError {
        ConnectionError::Call(self.redis.failed(error))
    }

    fn silent(&self) -> ConnectionError {
        ConnectionError::Call(self.redis.timed_out(REDIS_DEADLINE))
    }

    /// Number of unanswered calls.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn send(&mut self, keys: &RunKeys, append: &Append<'_>) {
        let request = match append.count {
            0 => Request::State,
            _ => Request::Append {
                first: append.first,
            },
        };
        let command = append.command(keys);
        let mut connection = self.connection.clone();
        // Unconstrained: if tokio's cooperative budget refused the first poll, a later call could
        // overtake this one.
        let mut reply: BoxFuture<'static, Result<Value, RedisError>> =
            Box::pin(tokio::task::unconstrained(async move {
                command.query_async(&mut connection).await
            }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let reply = match reply.as_mut().poll(&mut context) {
            std::task::Poll::Pending => reply,
            std::task::Poll::Ready(result) => Box::pin(std::future::ready(result)),
        };
        self.calls.push_back(PendingCall {
            request,
            is_current: true,
            sent_at: Instant::now(),
            reply,
        });
    }

    /// Marks all calls in flight as superseded: sending continues elsewhere.
    pub(super) fn supersede_calls(&mut self) {
        for call in &mut self.calls {
            call.is_current = false;
        }
    }

    /// Waits for the reply to the oldest call, forever if there is none. Cancel safe.
    pub(super) async fn next_reply(&mut self) -> Result<RequestReply, ConnectionError> {
        let Some(call) = self.calls.front_mut() else {
            return std::future::pending().await;
        };
        let deadline = call.sent_at.max(self.last_reply_at) + REDIS_DEADLINE;
        let replied = tokio::time::timeout_at(deadline, &mut call.reply).await;
        let (request, is_current) = (call.request, call.is_current);
        let Ok(result) = replied else {
            return Err(self.silent());
        };
        self.calls.pop_front();
        self.last_reply_at = Instant::now();
        Ok(RequestReply {
            request,
            is_current,
            result: result.and_then(AppendReply::parse),
        })
    }
}
