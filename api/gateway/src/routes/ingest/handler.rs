//! `POST /v1/runs/{run}/events`: publish over HTTP, from any language, with the guarantees of the
//! append script.
//!
//! The body is NDJSON, one event a line, or, with `Content-Type: text/plain`, plain lines that
//! become `output` events of `?variation=`. It is read while it is sent, so `make 2>&1 | curl -T -
//! ...` is live: events are appended in batches, at most [`LINGER`](super::body::LINGER) after the
//! first of them.
//!
//! - `Producer-Id` names the producer (a UUID, or any text, which then is unique within the run).
//!   Without it the request is a producer of its own.
//! - `Producer-Seq` is the seq of the body's first event. With it a request may be sent again after
//!   any failure: known events are not stored twice. Without it the events are appended to those
//!   stored.
//! - `Producer-Epoch` fences: a larger one refuses all smaller ones.
//!
//! The answer says how many of the producer's events are in Redis (`stored`) and in Postgres
//! (`durable`). 409 means a gap, with the seq that must come first, or that a newer epoch exists.
//! 429 with `Retry-After` means that the run is full, or is published to too fast
//! ([`throttle`](super::throttle)), or that too many bodies are open
//! ([`open_bodies`](super::open_bodies)). Bodies may be compressed (gzip, or zstd with a window of
//! at most 8 MiB). Limits of a request:
//! [`MAX_BODY_BYTES`](super::body::MAX_BODY_BYTES) and
//! [`MAX_BODY_TIME`](super::body::MAX_BODY_TIME), and [`MAX_PAUSE`](super::body::MAX_PAUSE) between
//! two pieces of the body.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{Format, LineBatches};
use super::decoder::Encoding;
use super::open_bodies::OpenBodies;
use super::producer::{AcceptedEvents, Producer};
use super::throttle::Throttle;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::problem::Problem;
use crate::routes::run_access::authorize_run;
use runcast_access::Scope;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(ingest))
        .layer(Extension(Arc::<OpenBodies>::default()))
}

/// Publishes events of a run.
///
/// NDJSON, one event a line; or plain lines, which become output. The body is read while it is
/// sent. It may be compressed: by gzip, or by zstd with a window of at most 8 MiB.
#[utoipa::path(
    method(post, put),
    path = "/v1/runs/{run}/events",
    params(
        ("variation" = Option<u16>, Query, maximum = 255, description = "The variation of plain lines"),
        ("Producer-Id" = Option<String>, Header, max_length = 200, description = "A UUID, or any name"),
        ("Producer-Seq" = Option<u64>, Header, minimum = 1, description = "The seq of the first event: known events are not stored twice"),
        ("Producer-Epoch" = Option<u64>, Header, description = "A larger one refuses all smaller ones"),
    ),
    request_body(content(("application/x-ndjson"), ("text/plain"))),
    responses(
        (status = 200, description = "How many of the producer's events are stored", body = AcceptedEvents),
        (status = 409, description = "Earlier events are missing, or a newer epoch exists"),
        (status = 415, description = "Content-Encoding is neither gzip nor zstd"),
    ),
    security(("bearer" = [Scope::Publish])),
    extensions(("x-rate-class" = json!("ingest")))
)]
async fn ingest(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(open_bodies): Extension<Arc<OpenBodies>>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AcceptedEvents>, Problem> {
    let (format, encoding) = (Format::of(&headers, &query)?, Encoding::of(&headers)?);
    let (run, _) = authorize_run(&gateway, &principal, Scope::Publish, &id).await?;
    let mut producer = Producer::of(&gateway, run, &headers).await?;
    let mut throttle = Throttle::of(&principal, run);
    let open = open_bodies.open(&principal, encoding)?;
    let mut batches = LineBatches::new(body, encoding, format, Some(open));
    loop {
        let batch = batches.next().await?;
        if batch.count > 0 {
            let throttled = throttle.wait_for_quota(&gateway, batch.body.len()).await;
            throttled.map_err(|problem| producer.with_progress(problem))?;
            producer.append(&gateway, &batch).await?;
        }
        if batch.is_last {
            return Ok(Json(producer.accepted()));
        }
    }
}
