//! `/v1/feed`: changes of all runs as server-sent events; see [`runcast_fanout::feed`].
//!
//! A principal that may read some runs gets the changes of those.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::extract::sse::{as_events, resume};
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_fanout::feed;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(follow))
}

/// Follows the changes of all runs as server-sent events.
///
/// A token or a ticket that is bound to runs gets the changes of those.
#[utoipa::path(
    get,
    path = "/v1/feed",
    params(
        ("after" = Option<String>, Query, description = "The id of the last event"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same; wins over `after`"),
    ),
    responses((status = 200, description = "Goes on until the client or the server ends it", body = String, content_type = "text/event-stream")),
    security(("bearer" = [Scope::Read]), ("ticket" = [Scope::Read])),
    extensions(("x-rate-class" = json!("stream")))
)]
async fn follow(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let visibility = gateway.visibility(&principal)?;
    let after = resume(&headers, &query)?.map(str::to_owned);
    let hub = gateway.hub();
    let registration = gateway.access().open_streams().open(&principal);
    let frames = feed::feed_body(
        hub.feed().clone(),
        after,
        visibility,
        registration,
        hub.shedding(),
        hub.stop().clone(),
    );
    let body = Body::from_stream(frames.map(Ok::<_, Infallible>));
    Ok(as_events(body.into_response()))
}
