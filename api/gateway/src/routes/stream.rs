//! `/v1/runs/{run}/stream`: one run as server-sent events, resumed exactly by event id.
//!
//! `Last-Event-ID` wins over `?after=`: a browser that reconnects sends the header, and the address it
//! was opened with stays as it was. An empty header is an absent one. A malformed cursor is refused: it
//! must never become a silent replay.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use runcast_common::protocol::event_id::EventId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::runs::admit;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::problem::Problem;
use crate::server::accept::StreamHandoff;
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
        ("Last-Event-ID" = Option<String>, Header, description = "The same, and wins over it"),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `status`"),
        ("level" = Option<Vec<String>>, Query, description = "Only logs of these levels"),
    ),
    responses(
        (status = 200, description = "Ends with the run: `end` is its last event", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The run is over and nothing is behind the cursor: stay away"),
    ),
    security(("bearer" = [Scope::Read]), ("ticket" = [Scope::Read]))
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
        filter: query.filter()?.of_levels(query.levels()?),
    };
    let (run, coverage) = admit(&gateway, &principal, Scope::Read, &id).await?;
    // Nothing is left to say: an EventSource takes this for the end and stays away.
    if coverage.ended && request.after >= coverage.watermark {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = gateway.hub().watch(run);
    let mut viewer = Viewer::new(gateway.hub().clone(), watch, request);
    viewer.held().opened = Some(gateway.access().openings().open(&principal));
    let mut response = ().into_response();
    response.extensions_mut().insert(StreamHandoff::new(viewer));
    Ok(as_events(response))
}

/// The headers of server-sent events.
pub(crate) fn as_events(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    // nginx would otherwise collect frames until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn cursor(headers: &HeaderMap, query: &Query) -> Result<EventId, Problem> {
    match resume(headers, query)? {
        Some(text) => Ok(EventId::parse_cursor(text)?),
        None => Ok(EventId::ZERO),
    }
}

/// Where a client has got to, as it says.
///
/// # Errors
/// 400 for a header that is no text.
pub(crate) fn resume<'a>(
    headers: &'a HeaderMap,
    query: &'a Query,
) -> Result<Option<&'a str>, Problem> {
    let header = match headers.get("last-event-id").map(HeaderValue::to_str) {
        Some(Ok(text)) => Some(text.trim()).filter(|text| !text.is_empty()),
        Some(Err(_not_ascii)) => return Err(Problem::bad_request("Last-Event-ID is not ASCII")),
        None => None,
    };
    Ok(header.or_else(|| query.get("after")))
}
