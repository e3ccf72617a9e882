//! `/v1/feed`: what changes about any run, as server-sent events; see [`runcast_fanout::feed`].

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::stream::{as_events, resume};
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_fanout::feed::bytes;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(feed))
}

/// Follows what changes about any run, as server-sent events.
///
/// A token or a ticket that is bound to runs is told of those.
#[utoipa::path(
    get,
    path = "/v1/feed",
    params(
        ("after" = Option<String>, Query, description = "Where to go on"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, and wins over it"),
    ),
    responses((status = 200, description = "Goes on until the client or the server ends it", body = String, content_type = "text/event-stream")),
    security(("bearer" = [Scope::Read]), ("ticket" = [Scope::Read]))
)]
async fn feed(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Who may see some runs is told of those.
    let sight = gateway.sight(&principal)?;
    let after = resume(&headers, &query)?.map(str::to_owned);
    let (feed, stop) = (gateway.hub().feed().clone(), gateway.hub().stop().clone());
    let opened = gateway.access().openings().open(&principal);
    let frames = bytes(feed, after, sight, opened, gateway.hub().shedding(), stop);
    Ok(as_events(
        Body::from_stream(frames.map(Ok::<_, Infallible>)).into_response(),
    ))
}
