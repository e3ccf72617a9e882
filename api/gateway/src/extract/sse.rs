//! Server-sent events: where a client resumes, and the headers of the answer.
//!
//! `Last-Event-ID` wins over `?after=`: a browser that reconnects sends the header, while the
//! address that it opened stays the same. An empty header counts as absent. A malformed cursor is
//! refused: it must never become a silent replay from the beginning.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use runcast_common::protocol::event_id::EventId;

use super::query::Query;
use crate::problem::Problem;

/// Gives an answer the headers of server-sent events.
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
    // Without it nginx collects frames until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The event id that a client resumes behind; the beginning if it names none.
pub(crate) fn cursor(headers: &HeaderMap, query: &Query) -> Result<EventId, Problem> {
    match resume(headers, query)? {
        Some(text) => Ok(EventId::parse_cursor(text)?),
        None => Ok(EventId::ZERO),
    }
}

/// The cursor that a client resumes from, as it sent it.
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
