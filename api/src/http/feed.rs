//! `/v1/feed`: what changes about any run, as server-sent events; see [`crate::fanout::feed`].

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::StreamExt as _;

use super::Gateway;
use super::problem::Problem;
use super::query::Query;
use super::stream::{as_events, resume};
use crate::access::principal::Principal;
use crate::fanout::feed::bytes;

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new().route("/v1/feed", get(feed))
}

async fn feed(
    principal: Principal,
    State(gateway): State<Gateway>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Who may see some runs is told of those.
    let sight = gateway.sight(&principal)?;
    let after = resume(&headers, &query)?.map(str::to_owned);
    let (feed, stop) = (gateway.hub().feed().clone(), gateway.hub().stop().clone());
    let frames = bytes(feed, after, sight, stop);
    Ok(as_events(
        Body::from_stream(frames.map(Ok::<_, Infallible>)).into_response(),
    ))
}
