//! `/v1/runs/{run}/stream`: one run as server-sent events, resumed exactly by event id.
//!
//! `?channel=` and `?level=` filter. [`crate::extract::sse`] says where a client resumes, and
//! [`crate::server`] how the answer becomes a socket of a writer thread. A viewer that is slow has
//! no queue: it resumes from where it is.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::run_access::authorize_run;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::extract::sse::{as_events, cursor};
use crate::problem::Problem;
use crate::server::handover::StreamHandoff;
use runcast_access::Scope;
use runcast_fanout::viewer::{StreamRequest, Viewer};

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// Follows one run as server-sent events, resumed exactly.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/stream",
    params(
        ("after" = Option<String>, Query, description = "Events behind this id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same; wins over `after`"),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `status`"),
        ("level" = Option<Vec<String>>, Query, description = "Only logs of these levels"),
    ),
    responses(
        (status = 200, description = "Ends with the run: `end` is its last event", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The run is over, and nothing is behind the cursor: do not reconnect"),
    ),
    security(("bearer" = [Scope::Read]), ("ticket" = [Scope::Read])),
    extensions(("x-rate-class" = json!("stream")))
)]
async fn stream(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = StreamRequest {
        after: cursor(&headers, &query)?,
        filter: query.filter()?.with_levels(query.levels()?),
    };
    let (run, coverage) = authorize_run(&gateway, &principal, Scope::Read, &id).await?;
    // Nothing is left to send. 204 tells an EventSource not to reconnect.
    if coverage.ended && request.after >= coverage.watermark {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let tail = gateway.hub().watch(run);
    let mut viewer = Viewer::new(gateway.hub().clone(), tail, request);
    viewer.permits().registration = Some(gateway.access().open_streams().open(&principal));
    let mut response = ().into_response();
    response.extensions_mut().insert(StreamHandoff::new(viewer));
    Ok(as_events(response))
}
