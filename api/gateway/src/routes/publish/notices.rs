//! `GET /v1/runs/{run}/notices`: what an agent that publishes through this gateway has to learn
//! without asking: which of its events Postgres holds, and the commands to its variation.
//!
//! The answer is NDJSON and lasts until the gateway drains, the credential is revoked, or the
//! client leaves. Each line is `{"durable":N}`, `{"command":{...}}`, or `{}` after
//! [`KEEP_ALIVE`] of silence, by which the agent notices a dead connection. It begins with what
//! holds now, so a reconnect misses nothing; an agent may see a command again. With `once` the
//! answer ends there: for agents behind a proxy that holds answers back until they are whole.
//!
//! `settle.lua` and `control.lua` publish a notice when there is something to read, and this route
//! then reads it from Redis: at most once in [`MIN_INTERVAL`], and with each keep-alive in case a
//! notice was lost. So an idle run costs nothing else. Bounds: [`MAX_LISTENERS`] per run.

use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::Stream;
use runcast_access::Scope;
use runcast_access::open_streams::StreamRegistration;
use runcast_common::backoff::Backoff;
use runcast_common::commands::{self, CommandEntry, STREAM_START};
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::MAX_VARIATIONS;
use runcast_common::scripts::read_durable;
use runcast_fanout::wakeups::NoticeSubscription;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::protocol_version::check_protocol;
use super::published_runs::PublishedRuns;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::problem::Problem;

/// Silence after which a line without content is sent. Proxies commonly end an answer after 60 s
/// of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Shortest time between two reads: the persister may commit hundreds of times a second.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// Bound on the listeners of one run: an agent for each variation, and as many that were just
/// replaced.
const MAX_LISTENERS: usize = 2 * MAX_VARIATIONS as usize;

/// When to try again if there are too many.
const RETRY_AFTER: Duration = Duration::from_secs(30);

pub(super) fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(notices))
}

/// Tells an agent what Postgres holds of its events, and which commands wait for it.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/notices",
    params(
        ("producer" = Uuid, Query, description = "The producer"),
        ("variation" = Option<u16>, Query, maximum = 255, description = "The variation whose commands to send"),
        ("once" = Option<bool>, Query, description = "Only what holds now"),
        ("Runcast-Protocol" = u32, Header, description = "The version of the protocol: 1"),
    ),
    responses(
        (status = 200, description = "One JSON object a line, until the gateway drains", body = String, content_type = "application/x-ndjson"),
    ),
    security(("bearer" = [Scope::Publish])),
    extensions(("x-rate-class" = json!("publish")))
)]
async fn notices(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(runs): Extension<Arc<PublishedRuns>>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let run = runs.authorize(&gateway, &principal, &id).await?;
    check_protocol(&headers)?;
    let producer: Option<Uuid> = query.parse("producer")?;
    let producer = producer.ok_or_else(|| Problem::bad_request("parameter producer is missing"))?;
    let variation: u16 = query.parse("variation")?.unwrap_or(0);
    let once = query.flag("once")?;
    run.count_request(&gateway, &principal).await?;
    let mut source = NoticeSource {
        redis: gateway.redis().clone(),
        keys: gateway.keys().run(run.id),
        producer,
        variation,
        durable: 0,
        last_command: STREAM_START.to_owned(),
    };
    if once {
        return Ok(as_lines(Body::from(source.read().await?)));
    }
    let Some(subscription) = gateway.hub().notices(run.id, MAX_LISTENERS) else {
        let detail = format!("the run has {MAX_LISTENERS} agents that listen to notices already");
        return Err(Problem::too_many(detail, RETRY_AFTER));
    };
    let registration = gateway.access().open_streams().open(&principal);
    let stop = gateway.hub().stop().clone();
    let lines = lines(source, subscription, registration, stop);
    Ok(as_lines(Body::from_stream(lines)))
}

/// An answer of lines that no proxy keeps.
fn as_lines(body: Body) -> Response {
    let mut response = body.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    // Without it nginx collects lines until its buffer is full.
    let unbuffered = HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert("x-accel-buffering", unbuffered);
    response
}

/// The lines, until the gateway drains or the credential is revoked.
fn lines(
    mut source: NoticeSource,
    mut subscription: NoticeSubscription,
    registration: StreamRegistration,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    stream! {
        let mut backoff = Backoff::for_connections();
        // The head of the answer leaves with the first line, so it comes at once.
        yield Ok(Bytes::from_static(b"{}\n"));
        loop {
            let read_at = Instant::now();
            let wait = match source.read().await {
                Ok(lines) => {
                    backoff.reset();
                    if !lines.is_empty() {
                        yield Ok(Bytes::from(lines));
                    }
                    KEEP_ALIVE
                }
                // The agent notices an outage of Redis by its appends.
                Err(error) => {
                    tracing::debug!(run = %source.keys.run, %error, "cannot read notices; retrying");
                    backoff.next_wait()
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = registration.revoked() => return,
                () = subscription.next() => {
                    tokio::time::sleep_until(read_at + MIN_INTERVAL).await;
                }
                () = sleep(wait) => if wait == KEEP_ALIVE {
                    yield Ok(Bytes::from_static(b"{}\n"));
                }
            }
        }
    }
}

/// Reads what is new for one agent.
struct NoticeSource {
    redis: Redis,
    keys: RunKeys,
    producer: Uuid,
    variation: u16,
    /// The durable seq that was sent.
    durable: u64,
    /// The last command that was read.
    last_command: String,
}

impl NoticeSource {
    /// The lines of what has changed since the last call.
    async fn read(&mut self) -> Result<String, RedisFailure> {
        let durable = read_durable(&self.keys, self.producer);
        let durable: Option<u64> = self.redis.query(self.keys.slot, &durable).await?;
        let read = commands::read_now(&self.keys, &self.last_command);
        let reply: redis::Value = self.redis.query(self.keys.slot, &read).await?;
        let entries = commands::parse(reply).map_err(|error| self.redis.failed(error))?;
        let mut lines = String::new();
        if let Some(durable) = durable.filter(|durable| *durable > self.durable) {
            self.durable = durable;
            lines += &format!("{}\n", json!({ "durable": durable }));
        }
        for CommandEntry { entry, command } in entries {
            if let Some(command) = command.filter(|one| one.variation == self.variation) {
                let command = json!({
                    "entry": entry, "id": command.id, "command": command.action.name(),
                    "by": command.by, "data": command.data,
                });
                lines += &format!("{}\n", json!({ "command": command }));
            }
            self.last_command = entry;
        }
        Ok(lines)
    }
}
