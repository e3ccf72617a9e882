//! `POST /v1/runs/{run}/events`: publish over HTTP, from any language, with the guarantees of the
//! append script.
//!
//! The body is NDJSON, one event a line, or, with `Content-Type: text/plain`, plain lines that become
//! `output` events of `?variation=`. It is taken as it comes, so `make 2>&1 | curl -T - ...` is live:
//! events are appended in batches, [`lines::LINGER`] after the first of them at the latest.
//!
//! - `Producer-Id` names the producer (a UUID, or any text, which then counts within the run). Without
//!   it the request is a producer of its own.
//! - `Producer-Seq` is the seq of the body's first event. With it a request may be sent again after any
//!   failure: what is known is not stored twice. Without it the body goes behind what is there.
//! - `Producer-Epoch` fences: a larger one refuses all smaller ones.
//!
//! The answer says how far the producer's events are in Redis (`stored`) and in Postgres (`durable`). A
//! gap is 409 with the seq that must come first, a newer epoch is 409 as well, a run that holds as much
//! as it may, or is published to too fast ([`pace`]), is 429 with `Retry-After`. Bodies may be compressed (gzip, zstd). Limits: [`lines::MAX_BYTES`] and
//! [`lines::MAX_TIME`] a request, [`lines::MAX_SILENCE`] between two pieces of it.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use tower_http::decompression::RequestDecompressionLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::runs::admit;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::problem::Problem;
use crate::routes::ingest::body::{Format, Lines};
use crate::routes::ingest::producer::{AcceptedEvents, Producer};
use crate::routes::ingest::throttle::Throttle;
use runcast_access::Scope;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(ingest))
        .layer(RequestDecompressionLayer::new())
}

/// Publishes events of a run.
///
/// NDJSON, one event a line; or plain lines, which become output. They are taken as they come.
#[utoipa::path(
    method(post, put),
    path = "/v1/runs/{run}/events",
    params(
        ("variation" = Option<u16>, Query, maximum = 255, description = "Of plain lines"),
        ("Producer-Id" = Option<String>, Header, max_length = 200, description = "A UUID, or any name"),
        ("Producer-Seq" = Option<u64>, Header, minimum = 1, description = "Of the first event: what is known is not stored twice"),
        ("Producer-Epoch" = Option<u64>, Header, description = "A larger one refuses all smaller ones"),
    ),
    request_body(content(("application/x-ndjson"), ("text/plain"))),
    responses(
        (status = 200, description = "How far the producer has come", body = AcceptedEvents),
        (status = 409, description = "Earlier events are missing, or there is a newer producer"),
    ),
    security(("bearer" = [Scope::Publish]))
)]
async fn ingest(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AcceptedEvents>, Problem> {
    let format = Format::of(&headers, &query)?;
    let (run, _) = admit(&gateway, &principal, Scope::Publish, &id).await?;
    let mut producer = Producer::of(&gateway, run, &headers).await?;
    let mut pace = Throttle::of(&principal, run);
    let mut lines = Lines::new(body.into_data_stream(), format);
    loop {
        let batch = lines.batch().await?;
        if batch.count > 0 {
            let paced = pace.bytes(&gateway, batch.body.len()).await;
            paced.map_err(|problem| producer.got_so_far(problem))?;
            producer.append(&gateway, &batch).await?;
        }
        if batch.is_last {
            return Ok(Json(producer.accepted()));
        }
    }
}
