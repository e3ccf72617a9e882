//! The calls of a publisher that publishes through the gateway.
//!
//! None of them is repeated here, except where a kept connection turns out to be closed: the caller
//! has a backoff of its own, or a call that comes again anyway.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Response};
use runcast_common::presence::heartbeat::{Agent, Heartbeat};
use runcast_common::protocol::append_calls::{MEDIA_TYPE, PROTOCOL_HEADER, PROTOCOL_VERSION};
use runcast_common::protocol::event_id::EventId;
use runcast_common::scripts::{AppendOutcome, AppendReply};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::client::GatewayClient;
use super::error::ApiError;

/// Time for an append beside that of its body: the gateway bounds its call of Redis by five
/// seconds, and waits up to one for the byte rate of the run.
const APPEND_TIMEOUT: Duration = Duration::from_secs(7);

/// The slowest way on which a body still arrives in time, in bytes a second.
const MIN_BYTES_PER_SECOND: u32 = 48 * 1024;

/// Time for every other call: each is one or two calls of Redis.
const CALL_TIMEOUT: Duration = Duration::from_secs(7);

/// One process of a producer, and the run that it publishes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerOfRun {
    pub(crate) run: Uuid,
    pub(crate) producer: Uuid,
    pub(crate) epoch: u64,
}

/// The answer to [`GatewayClient::append`].
#[derive(Debug)]
pub(crate) struct AppendAnswer {
    /// The replies to the first calls, in order.
    pub(crate) replies: Vec<AppendReply>,
    /// Why the others were not executed, if there are others.
    pub(crate) stopped: Option<String>,
}

#[derive(Deserialize)]
struct AnswerBody {
    replies: Vec<ReplyBody>,
    stopped: Option<String>,
}

#[derive(Deserialize)]
struct ReplyBody {
    outcome: String,
    last: EventId,
    durable: u64,
    detail: u64,
}

impl ReplyBody {
    fn into_reply(self) -> Option<AppendReply> {
        let outcome = match self.outcome.as_str() {
            "ok" => AppendOutcome::Stored {
                stored: self.detail,
            },
            "gap" => AppendOutcome::Gap {
                expected: self.detail,
            },
            "full" => AppendOutcome::Full,
            "fenced" => AppendOutcome::Fenced { by: self.detail },
            "gone" => AppendOutcome::Gone,
            _ => return None,
        };
        Some(AppendReply {
            outcome,
            last: self.last,
            durable: self.durable,
        })
    }
}

impl GatewayClient {
    /// Appends the calls of a body, as `append_calls` writes it.
    pub(crate) async fn append(
        &self,
        producer: ProducerOfRun,
        calls: Bytes,
    ) -> Result<AppendAnswer, ApiError> {
        let run = producer.run.to_string();
        let bytes = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        let limit = APPEND_TIMEOUT + Duration::from_secs((bytes / MIN_BYTES_PER_SECOND).into());
        let request = || {
            let url = self.url(&["v1", "runs", &run, "append"]);
            self.http
                .post(url)
                .header(CONTENT_TYPE, MEDIA_TYPE)
                .header("Producer-Id", producer.producer.to_string())
                .header("Producer-Epoch", producer.epoch)
                .timeout(limit)
                .body(calls.clone())
        };
        let response = self.call_once(&run, request).await?;
        let body = response.bytes().await;
        let body = body.map_err(|error| self.unreachable(&error))?;
        let parsed: Result<AnswerBody, _> = serde_json::from_slice(&body);
        let parsed = parsed.map_err(|error| self.unexpected(error.to_string()))?;
        let replies = parsed.replies.into_iter().map(ReplyBody::into_reply);
        let replies: Option<Vec<_>> = replies.collect();
        Ok(AppendAnswer {
            replies: replies
                .ok_or_else(|| self.unexpected("an append has an unknown outcome".to_owned()))?,
            stopped: parsed.stopped,
        })
    }

    /// Sends a heartbeat.
    pub(crate) async fn heartbeat(
        &self,
        agent: &Agent,
        heartbeat: &Heartbeat,
    ) -> Result<(), ApiError> {
        let run = agent.run.to_string();
        let body = json!({
            "agent": heartbeat.agent, "variation": heartbeat.variation, "host": agent.host,
            "pid": agent.pid, "version": agent.version, "started": agent.started,
            "time": heartbeat.time, "published": heartbeat.published,
            "unstored": heartbeat.unstored, "quiet_ms": heartbeat.quiet_ms,
            "rss": heartbeat.rss, "cpu": heartbeat.cpu,
        });
        let request = || {
            let url = self.url(&["v1", "runs", &run, "heartbeats"]);
            self.http.post(url).timeout(CALL_TIMEOUT).json(&body)
        };
        self.call_once(&run, request).await.map(drop)
    }

    /// Opens the long answer with the notices to a producer.
    pub(crate) async fn notices(
        &self,
        producer: ProducerOfRun,
        variation: u16,
    ) -> Result<Response, ApiError> {
        let run = producer.run.to_string();
        let url = self.notices_url(producer, variation);
        self.call_once(&run, || self.http.get(url.clone())).await
    }

    /// The notices that hold now.
    pub(crate) async fn notices_once(
        &self,
        producer: ProducerOfRun,
        variation: u16,
    ) -> Result<Bytes, ApiError> {
        let run = producer.run.to_string();
        let mut url = self.notices_url(producer, variation);
        url.query_pairs_mut().append_pair("once", "true");
        let request = || self.http.get(url.clone()).timeout(CALL_TIMEOUT);
        let response = self.call_once(&run, request).await?;
        let body = response.bytes().await;
        body.map_err(|error| self.unreachable(&error))
    }

    fn notices_url(&self, producer: ProducerOfRun, variation: u16) -> Url {
        let mut url = self.url(&["v1", "runs", &producer.run.to_string(), "notices"]);
        url.query_pairs_mut()
            .append_pair("producer", &producer.producer.to_string())
            .append_pair("variation", &variation.to_string());
        url
    }

    /// Removes an answered command.
    pub(crate) async fn remove_command(&self, run: Uuid, entry: &str) -> Result<(), ApiError> {
        let run = run.to_string();
        let request = || {
            let url = self.url(&["v1", "runs", &run, "commands", entry]);
            self.http.delete(url).timeout(CALL_TIMEOUT)
        };
        self.call_once(&run, request).await.map(drop)
    }

    async fn call_once(
        &self,
        run: &str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, ApiError> {
        let send = || request().header(PROTOCOL_HEADER, PROTOCOL_VERSION).send();
        let sent = match send().await {
            // A kept connection may be closed at the moment that a request leaves on it.
            Err(error) if error.is_request() && !error.is_connect() && !error.is_timeout() => {
                send().await
            }
            sent => sent,
        };
        match sent {
            Ok(response) => self.check(run, response).await,
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn unexpected(&self, reason: String) -> ApiError {
        ApiError::Unexpected {
            url: self.display_url().to_owned(),
            reason,
        }
    }
}
