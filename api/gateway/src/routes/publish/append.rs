//! `POST /v1/runs/{run}/append`: the batches of a producer, appended in their order.
//!
//! The body is a sequence of calls of the append script ([`append_calls`]). The gateway sets the
//! run and its limits, sends all calls to Redis at once, and answers the reply to each. Calls are
//! safe to repeat, so after any failure the agent sends them again, here or elsewhere.
//!
//! Where Redis executes no writes for now (it is out of memory, or busy), the answer ends before
//! that call, and `stopped` says why. Bounds: [`MAX_CALLS_BYTES`] and the byte rate of the run.
//! Time: the usual deadline for a body, and the Redis deadline for all calls together.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::{Extension, Json};
use bytes::Bytes;
use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use runcast_common::protocol::append_calls::{
    self, AppendCall, MAX_CALLS_BYTES, MEDIA_TYPE, PROTOCOL_HEADER,
};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::RunKeys;
use runcast_common::scripts::{Append, AppendAs, AppendOutcome, AppendReply, Cap, load_append};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::protocol_version::check_protocol;
use super::published_runs::PublishedRuns;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::problem::Problem;
use runcast_access::Scope;

/// The routes of publishing through this gateway, which share what it remembers of runs.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(append))
        .layer(DefaultBodyLimit::max(MAX_CALLS_BYTES))
        .merge(super::heartbeats::router())
        .merge(super::notices::router())
        .merge(super::commands::router())
        .layer(Extension(Arc::<PublishedRuns>::default()))
}

#[derive(Debug, Serialize, ToSchema)]
struct AppendAnswer {
    /// The reply to each call, in order.
    replies: Vec<CallReply>,
    /// Why Redis has executed no further call, if it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CallReply {
    /// `ok`, `gap`, `full`, `fenced` or `gone` (the run was deleted); only after `ok` the run holds
    /// the batch.
    outcome: &'static str,
    /// Id of the run's last event.
    #[schema(value_type = String)]
    last: EventId,
    /// Highest seq of the producer that Postgres holds.
    durable: u64,
    /// `ok`: highest seq of the producer that Redis holds; `gap`: the seq that must come first;
    /// `fenced`: the newer epoch.
    detail: u64,
}

/// Appends batches of the publisher library.
///
/// The body is a sequence of calls, each a line `<base> <acked> <first> <count> <b|z> <length>`
/// and a body of event lines, plain or compressed by zstd. Other clients use `/events`.
#[utoipa::path(
    post,
    path = "/v1/runs/{run}/append",
    params(
        ("Runcast-Protocol" = u32, Header, description = "The version of the protocol: 1"),
        ("Producer-Id" = Uuid, Header, description = "The producer"),
        ("Producer-Epoch" = u64, Header, description = "A larger one refuses all smaller ones"),
    ),
    request_body(content(("application/octet-stream"))),
    responses((status = 200, description = "The reply to each call", body = AppendAnswer)),
    security(("bearer" = [Scope::Publish])),
    extensions(("x-rate-class" = json!("publish")))
)]
async fn append(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(runs): Extension<Arc<PublishedRuns>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<AppendAnswer>, Problem> {
    // 1. Who publishes what.
    let run = runs.authorize(&gateway, &principal, &id).await?;
    check_protocol(&headers)?;
    check_media_type(&headers)?;
    let producer = ProducerHeaders::parse(&headers)?;
    let body = body?;
    let calls =
        append_calls::parse(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
    run.wait_for_quota(&gateway, &principal, body.len()).await?;
    // 2. Append all batches.
    let keys = gateway.keys().run(run.id);
    let calls: Vec<_> = calls
        .into_iter()
        .map(|call| producer.append(call))
        .collect();
    let (calls, keys) = (&calls, &keys);
    let results = gateway
        .redis()
        .run(keys.slot, async |connection| {
            send_all(calls, keys, connection).await
        })
        .await?;
    // 3. Answer.
    let mut answer = AppendAnswer {
        replies: Vec::with_capacity(results.len()),
        stopped: None,
    };
    for result in results {
        match result {
            Ok(reply) => answer.replies.push(CallReply::from(&reply)),
            Err(reason) => {
                answer.stopped = Some(reason);
                break;
            }
        }
    }
    Ok(Json(answer))
}

/// Sends all calls, and returns the reply to each, or why Redis executes no writes for now. Any
/// other error is one of the connection. Loads the script where the server does not know it.
async fn send_all(
    calls: &[Append<'_>],
    keys: &RunKeys,
    connection: &mut MultiplexedConnection,
) -> Result<Vec<Result<AppendReply, String>>, RedisError> {
    let mut replies = send_once(calls, keys, connection).await;
    let is_unknown = |reply: &Result<Value, RedisError>| matches!(reply, Err(error) if error.code() == Some("NOSCRIPT"));
    if replies.iter().any(is_unknown) {
        load_append(connection).await?;
        replies = send_once(calls, keys, connection).await;
    }
    let parsed = replies.into_iter().map(|reply| match reply {
        Ok(value) => AppendReply::parse(value).map(Ok),
        // With these codes Redis has rejected the call without executing anything.
        Err(error)
            if matches!(
                error.code(),
                Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY")
            ) =>
        {
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error),
    });
    parsed.collect()
}

async fn send_once(
    calls: &[Append<'_>],
    keys: &RunKeys,
    connection: &MultiplexedConnection,
) -> Vec<Result<Value, RedisError>> {
    let sending = calls.iter().map(|call| {
        let command = call.command(keys, AppendAs::Service);
        let mut connection = connection.clone();
        // Unconstrained: if tokio's cooperative budget refused the first poll, a later call could
        // overtake this one.
        tokio::task::unconstrained(async move { command.query_async(&mut connection).await })
    });
    join_all(sending).await
}

/// The producer that a request names.
#[derive(Debug, Clone, Copy)]
struct ProducerHeaders {
    id: Uuid,
    epoch: u64,
}

impl ProducerHeaders {
    fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        let id = text(headers, "producer-id").and_then(|text| Uuid::try_parse(text).ok());
        let id = id.ok_or_else(|| Problem::bad_request("Producer-Id must be a UUID"))?;
        let epoch = text(headers, "producer-epoch").and_then(|text| text.parse().ok());
        let epoch = epoch.filter(|epoch: &u64| *epoch < 1 << 53);
        let epoch = epoch
            .ok_or_else(|| Problem::bad_request("Producer-Epoch must be a number below 2^53"))?;
        Ok(Self { id, epoch })
    }

    fn append(self, call: AppendCall<'_>) -> Append<'_> {
        Append {
            producer: self.id,
            producer_epoch: self.epoch,
            base: call.base,
            acked: call.acked,
            first: call.first,
            count: call.count,
            body: call.body,
            cap: Cap::default(),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let stated = headers.get(header::CONTENT_TYPE);
    match stated.map(HeaderValue::as_bytes) {
        Some(stated) if stated == MEDIA_TYPE.as_bytes() => Ok(()),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "expected {MEDIA_TYPE} with a header {PROTOCOL_HEADER}; publish NDJSON to /events"
            ),
        )),
    }
}

impl From<&AppendReply> for CallReply {
    fn from(reply: &AppendReply) -> Self {
        let (outcome, detail) = match reply.outcome {
            AppendOutcome::Stored { stored } => ("ok", stored),
            AppendOutcome::Gap { expected } => ("gap", expected),
            AppendOutcome::Full => ("full", 0),
            AppendOutcome::Fenced { by } => ("fenced", by),
            AppendOutcome::Gone => ("gone", 0),
        };
        Self {
            outcome,
            last: reply.last,
            durable: reply.durable,
            detail,
        }
    }
}
