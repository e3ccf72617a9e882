//! A connection to Redis with several calls of the append script in flight.
//!
//! [`RedisConnection::send`] polls the call's future once, which hands the bytes to the
//! connection's driver: the call is on its way when `send` returns.
//!
//! Bounds: [`RedisConnection::MAX_IN_FLIGHT`]. Time: while calls are in flight, at least one reply
//! per deadline, however many there are; otherwise the connection counts as half open.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::RunKeys;
use runcast_common::scripts::{Append, AppendAs, AppendReply, load_append};
use tokio::time::{Instant, timeout};

use super::connection::{CallError, ConnectionError, RequestReply};
use crate::retransmit::send_window::Request;

struct PendingCall {
    request: Request,
    is_current: bool,
    sent_at: Instant,
    reply: BoxFuture<'static, Result<Value, RedisError>>,
}

/// A connection and its unanswered calls.
pub(crate) struct RedisConnection {
    connection: MultiplexedConnection,
    redis: Redis,
    keys: RunKeys,
    deadline: Duration,
    calls: VecDeque<PendingCall>,
    last_reply_at: Instant,
}

impl RedisConnection {
    /// Calls that may be in flight. Two hide the round trip within a cluster; eight still do at a
    /// distance of 10 ms for a stream of 10 MB/s, and hold at most 2 MiB.
    pub(crate) const MAX_IN_FLIGHT: usize = 8;

    /// Connects to the server that holds the run, and calls the append script there without an
    /// event: a server may accept a connection and refuse each append. `deadline` is for each
    /// reply.
    pub(crate) async fn open(
        redis: &Redis,
        keys: &RunKeys,
        deadline: Duration,
    ) -> Result<Self, ConnectionError> {
        let mut opened = Self {
            connection: redis.dedicated(keys.slot).await?,
            redis: redis.clone(),
            keys: keys.clone(),
            deadline,
            calls: VecDeque::with_capacity(Self::MAX_IN_FLIGHT + 1),
            last_reply_at: Instant::now(),
        };
        opened.probe().await?;
        Ok(opened)
    }

    async fn probe(&mut self) -> Result<(), ConnectionError> {
        let probe = Append::probe();
        let call = probe.call(&self.keys, AppendAs::RunUser, &mut self.connection);
        match timeout(self.deadline, call).await {
            Ok(Ok(_)) => Ok(()),
            // Busy: appends are tried again.
            Ok(Err(error)) if is_busy(&error) => Ok(()),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_elapsed) => Err(self.silent()),
        }
    }

    /// Loads the append script into the server, which the user of a run may not: then the gateway
    /// does, when it is asked anew how to publish.
    pub(super) async fn load_script(&mut self) -> Result<(), ConnectionError> {
        match timeout(self.deadline, load_append(&mut self.connection)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_elapsed) => Err(self.silent()),
        }
    }

    fn failed(&self, error: RedisError) -> ConnectionError {
        ConnectionError::Call(self.redis.failed(error))
    }

    fn silent(&self) -> ConnectionError {
        ConnectionError::Call(self.redis.timed_out(self.deadline))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn send(&mut self, append: &Append<'_>) {
        let command = append.command(&self.keys, AppendAs::RunUser);
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
            request: Request::of(append),
            is_current: true,
            sent_at: Instant::now(),
            reply,
        });
    }

    pub(super) fn supersede_calls(&mut self) {
        for call in &mut self.calls {
            call.is_current = false;
        }
    }

    pub(super) async fn next_reply(&mut self) -> Result<RequestReply, ConnectionError> {
        let Some(call) = self.calls.front_mut() else {
            return std::future::pending().await;
        };
        let deadline = call.sent_at.max(self.last_reply_at) + self.deadline;
        let replied = tokio::time::timeout_at(deadline, &mut call.reply).await;
        let (request, is_current) = (call.request, call.is_current);
        let Ok(result) = replied else {
            return Err(self.silent());
        };
        self.calls.pop_front();
        self.last_reply_at = Instant::now();
        let result = result.and_then(AppendReply::parse);
        Ok(RequestReply {
            request,
            is_current,
            result: result.map_err(|error| self.call_error(error)),
        })
    }

    fn call_error(&self, error: RedisError) -> CallError {
        match error.code() {
            Some("NOSCRIPT") => CallError::UnknownScript,
            _ if is_busy(&error) => CallError::Busy(error.to_string()),
            _ => CallError::Failed(self.failed(error)),
        }
    }
}

/// Whether Redis executes no writes at the moment: it has rejected the call without executing
/// anything.
fn is_busy(error: &RedisError) -> bool {
    matches!(
        error.code(),
        Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY")
    )
}
