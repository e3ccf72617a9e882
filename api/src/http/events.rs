//! `/v1/runs/{run}/events`: stored history, page by page, in both directions.
//!
//! Events come with their envelope, exactly as the stream shows them; `Accept: application/x-ndjson`
//! gives one a line. Only what is stored is here, in Postgres or in the archive: the stream has what is newer.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use runcast_common::entry::Event;
use runcast_common::id::EventId;

use super::Gateway;
use super::problem::Problem;
use super::query::Query;
use super::runs::admit;
use crate::access::Scope;
use crate::access::principal::Principal;
use crate::envelope::with_envelope;
use crate::store::events::{PAGE_EVENTS, Page, Start};

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new().route("/v1/runs/{run}/events", get(events))
}

async fn events(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = query.filter()?;
    let from = start(&query)?;
    let (run, coverage) = admit(&gateway, &principal, Scope::Read, &id).await?;
    let limit = query
        .parse("limit")?
        .unwrap_or(PAGE_EVENTS)
        .clamp(1, PAGE_EVENTS);
    let page = Page {
        run,
        from,
        coverage,
        channels: filter.channels(),
        limit,
    };
    let events = gateway.history().events(&page).await?;
    let next = match from {
        Start::After(_) => events
            .last()
            .map(|event| event.id)
            .filter(|id| *id < coverage.watermark),
        Start::Before(_) => events.first().map(|event| event.id),
    };
    if wants_ndjson(&headers) {
        return Ok(ndjson(&events, next));
    }
    Ok(json(&events, next, coverage.watermark))
}

fn start(query: &Query) -> Result<Start, Problem> {
    match (query.get("after"), query.get("before")) {
        (Some(_), Some(_)) => Err(Problem::bad_request(
            "give either after or before, not both",
        )),
        (None, Some("end")) => Ok(Start::Before(EventId::new((1 << 53) - 1, 0))),
        (None, Some(before)) => Ok(Start::Before(EventId::parse_cursor(before)?)),
        (Some(after), None) => Ok(Start::After(EventId::parse_cursor(after)?)),
        (None, None) => Ok(Start::After(EventId::ZERO)),
    }
}

fn wants_ndjson(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/x-ndjson"))
}

fn ndjson(events: &[Event], next: Option<EventId>) -> Response {
    let mut out = Vec::new();
    for event in events {
        with_envelope(&mut out, event);
        out.push(b'\n');
    }
    let mut response = Body::from(out).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    if let Some(Ok(next)) = next.map(|next| HeaderValue::from_str(&next.to_string())) {
        headers.insert("runcast-next", next);
    }
    response
}

fn json(events: &[Event], next: Option<EventId>, watermark: EventId) -> Response {
    let mut out = b"{\"events\":[".to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        with_envelope(&mut out, event);
    }
    let next = next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
    out.extend_from_slice(format!("],\"next\":{next},\"watermark\":\"{watermark}\"}}").as_bytes());
    let mut response = Body::from(out).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
