//! A connection to a gateway: calls of the append script travel in requests, one after the other.
//!
//! While a request is under way further calls collect, and leave together with the next one. So
//! many batches are in flight however long the way is, they reach Redis in order, and no proxy can
//! change that: requests that are under way at the same time may overtake each other. A quiet
//! stream has a request for each batch, a busy one fills them.
//!
//! Bounds: [`GatewayConnection::MAX_IN_FLIGHT`] calls, in requests that are closed above
//! [`FULL_REQUEST_BYTES`]. Time: [`GatewayClient::append`] bounds a request.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::BoxFuture;
use runcast_common::protocol::append_calls::{AppendCall, FULL_REQUEST_BYTES, MAX_IN_FLIGHT};
use runcast_common::scripts::Append;

use super::connection::{CallError, ConnectionError, RequestReply};
use crate::gateway_client::{ApiError, AppendAnswer, GatewayClient, ProducerOfRun};
use crate::retransmit::send_window::Request;

/// A call that is not answered yet.
struct PendingCall {
    request: Request,
    is_current: bool,
}

/// A connection and its unanswered calls.
pub(crate) struct GatewayConnection {
    client: GatewayClient,
    producer: ProducerOfRun,
    /// Calls that wait for the next request, each with its bytes.
    waiting: VecDeque<(PendingCall, Vec<u8>)>,
    /// The calls of the request under way.
    sent: VecDeque<PendingCall>,
    under_way: Option<BoxFuture<'static, Result<AppendAnswer, ApiError>>>,
    replies: VecDeque<RequestReply>,
}

impl GatewayConnection {
    /// Calls that may be in flight: those of the request under way, and those that collect.
    pub(crate) const MAX_IN_FLIGHT: usize = MAX_IN_FLIGHT;

    /// A connection of one producer. It says nothing before the first call.
    pub(crate) fn new(client: &GatewayClient, producer: ProducerOfRun) -> Self {
        Self {
            client: client.clone(),
            producer,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            under_way: None,
            replies: VecDeque::new(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.waiting.len() + self.sent.len() + self.replies.len()
    }

    pub(super) fn send(&mut self, append: &Append<'_>) {
        let call = AppendCall {
            base: append.base,
            acked: append.acked,
            first: append.first,
            count: append.count,
            body: append.body.clone(),
        };
        let mut bytes = Vec::new();
        call.write(&mut bytes);
        let pending = PendingCall {
            request: Request::of(append),
            is_current: true,
        };
        self.waiting.push_back((pending, bytes));
    }

    pub(super) fn supersede_calls(&mut self) {
        // What has not left need not leave.
        self.waiting.clear();
        for call in &mut self.sent {
            call.is_current = false;
        }
        for reply in &mut self.replies {
            reply.is_current = false;
        }
    }

    pub(super) async fn next_reply(&mut self) -> Result<RequestReply, ConnectionError> {
        loop {
            if let Some(reply) = self.replies.pop_front() {
                return Ok(reply);
            }
            if self.under_way.is_none() {
                self.start_request();
            }
            let Some(under_way) = &mut self.under_way else {
                return std::future::pending().await;
            };
            let answered = under_way.await;
            self.under_way = None;
            self.distribute(answered)?;
        }
    }

    /// Starts a request with the calls that wait, if there are any.
    fn start_request(&mut self) {
        let mut body = Vec::new();
        while body.len() < FULL_REQUEST_BYTES
            && let Some((call, bytes)) = self.waiting.pop_front()
        {
            body.extend_from_slice(&bytes);
            self.sent.push_back(call);
        }
        if !body.is_empty() {
            let (client, producer) = (self.client.clone(), self.producer);
            self.under_way = Some(Box::pin(async move {
                client.append(producer, Bytes::from(body)).await
            }));
        }
    }

    /// Gives each call of the request its reply.
    fn distribute(&mut self, answered: Result<AppendAnswer, ApiError>) -> Result<(), ApiError> {
        let (replies, stopped) = match answered {
            Ok(AppendAnswer { replies, stopped }) => (replies, stopped),
            // Nothing was executed, or it is unknown; a call may be repeated in any case.
            Err(error) if error.is_busy() => (Vec::new(), Some(error.to_string())),
            Err(error) => return Err(error),
        };
        for (call, reply) in self
            .sent
            .drain(..replies.len().min(self.sent.len()))
            .zip(replies)
        {
            self.replies.push_back(RequestReply {
                request: call.request,
                is_current: call.is_current,
                result: Ok(reply),
            });
        }
        // The first call without a reply is sent again, and all behind it follow.
        let reason = stopped.unwrap_or_else(|| "the gateway has left calls unanswered".into());
        for (index, call) in self.sent.drain(..).enumerate() {
            self.replies.push_back(RequestReply {
                request: call.request,
                is_current: call.is_current && index == 0,
                result: Err(CallError::Busy(reason.clone())),
            });
        }
        Ok(())
    }
}
