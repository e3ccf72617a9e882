//! `GET /v1/runs/{run}/events`: the events of a run page by page, from Postgres and from Redis.
//!
//! A page begins behind `after=ID`, ends before `before=ID`, ends with the newest event
//! (`before=end`), begins with a line by its number (`line=N`, from 1), or with the first event
//! that was appended at or after a time (`at=`, RFC 3339 or Unix milliseconds, by the clock of
//! Redis). It has up to `limit` events of the channels in `channel=`, at most [`MAX_PAGE_EVENTS`]
//! and 4 MiB. Events have their envelope, exactly as in the stream.
//!
//! JSON contains beside `events` the cursors `older` (for `before=`; null at the beginning) and
//! `newer` (for `after=`; the stream goes on from it without a seam), `more` (newer events exist),
//! and `ended`. With `Accept: application/x-ndjson` every event is a line, and the cursors are the
//! last line, of kind `page`.
//!
//! With `wait=SECONDS` an empty page behind `after` is held back until it has an event: a long
//! poll, for networks that buffer streams.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use chrono::DateTime;
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::run_access::authorize_run;
use crate::Gateway;
use crate::extract::accept::{NDJSON, wants_ndjson};
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::middleware::compression::compression;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_fanout::long_poll;
use runcast_history::envelope::for_readers;
use runcast_history::filter::Filter;
use runcast_history::pages::{MAX_PAGE_EVENTS, Page};

/// Longest wait of a long poll: below the minute after which many proxies give up.
const MAX_WAIT_SECONDS: u64 = 50;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(events))
        .layer(compression())
}

/// Where a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageAnchor {
    After(EventId),
    Before(EventId),
    AtEnd,
    Line(u64),
    At(u64),
}

/// What a page contains beside its events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventPage, description = "A page: its `events`, each with its envelope, and its cursors.")]
struct PageCursors {
    /// For `before`; null at the beginning.
    #[schema(value_type = Option<String>)]
    older: Option<EventId>,
    /// For `after`.
    #[schema(value_type = String)]
    newer: EventId,
    /// Newer events exist.
    more: bool,
    /// The run is over.
    ended: bool,
    /// The last event that Postgres has stored.
    #[schema(value_type = String)]
    watermark: EventId,
}

/// Pages through the events of a run.
///
/// By default it begins at the beginning; only one of `after`, `before`, `line` and `at` may be
/// given.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/events",
    params(
        ("after" = Option<String>, Query, description = "Events behind this id"),
        ("before" = Option<String>, Query, description = "Events before this id, or those at the `end`"),
        ("line" = Option<u64>, Query, minimum = 1, description = "From this line of output on"),
        ("at" = Option<String>, Query, description = "From this time on: RFC 3339, or Unix milliseconds"),
        ("limit" = Option<u64>, Query, minimum = 0, description = "Events at most"),
        ("wait" = Option<u64>, Query, maximum = 50, description = "Seconds that an empty page behind `after` is held back"),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `status`"),
        ("Accept" = Option<String>, Header, description = "`application/x-ndjson` for one event a line"),
    ),
    responses((status = 200, description = "A page", content(
        (PageCursors = "application/json"),
        ("application/x-ndjson"),
    ))),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn events(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = query.filter()?;
    let anchor = PageAnchor::of(&query)?;
    let wait = wait(&query, anchor)?;
    let limit = query
        .parse("limit")?
        .unwrap_or(MAX_PAGE_EVENTS)
        .clamp(1, MAX_PAGE_EVENTS);
    let (run, coverage) = authorize_run(&gateway, &principal, Scope::Read, &id).await?;
    let page = match (anchor, wait) {
        (PageAnchor::After(after), Some(wait)) => {
            let registration = gateway.access().open_streams().open(&principal);
            tokio::select! {
                page = long_poll::page_after(gateway.hub(), run, after, &filter, limit, wait) => page?,
                revocation = registration.revoked() => return Err(revocation.into()),
            }
        }
        _ => anchor.page(&gateway, run, &filter, limit).await?,
    };
    let cursors = PageCursors {
        older: page.has_older.then(|| page.after.next()),
        newer: page.upto,
        more: page.has_newer,
        ended: page.ended,
        watermark: coverage.watermark,
    };
    Ok(answer(&page, &cursors, wants_ndjson(&headers)))
}

impl PageAnchor {
    fn of(query: &Query) -> Result<Self, Problem> {
        let names = ["after", "before", "line", "at"];
        let given: Vec<(&str, &str)> = names
            .into_iter()
            .filter_map(|name| Some((name, query.get(name)?)))
            .collect();
        match given[..] {
            [] => Ok(Self::After(EventId::ZERO)),
            [("after", after)] => Ok(Self::After(EventId::parse_cursor(after)?)),
            [("before", "end")] => Ok(Self::AtEnd),
            [("before", before)] => Ok(Self::Before(EventId::parse_cursor(before)?)),
            [("line", _)] => match query.parse("line")? {
                Some(line) if line > 0 => Ok(Self::Line(line)),
                _ => Err(Problem::bad_request("parameter line: lines count from 1")),
            },
            [("at", at)] => Ok(Self::At(unix_milliseconds(at)?)),
            _ => Err(Problem::bad_request(
                "give only one of after, before, line and at",
            )),
        }
    }

    async fn page(
        self,
        gateway: &Gateway,
        run: Uuid,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, Problem> {
        let reader = gateway.hub().reader();
        let after = match self {
            Self::After(after) => after,
            Self::Before(before) => {
                return Ok(reader.page_before(run, Some(before), filter, limit).await?);
            }
            Self::AtEnd => return Ok(reader.page_before(run, None, filter, limit).await?),
            Self::Line(line) => reader.cursor_of_line(run, line).await?,
            Self::At(time_ms) => reader.cursor_at(run, time_ms).await?,
        };
        Ok(reader.page_after(run, after, filter, limit).await?)
    }
}

/// A point in time in Unix milliseconds.
fn unix_milliseconds(text: &str) -> Result<u64, Problem> {
    if let Ok(milliseconds) = text.parse() {
        return Ok(milliseconds);
    }
    // A plus sign that was not escaped was decoded as a blank.
    let parsed = DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
    let parsed = parsed.map_err(|error| {
        Problem::bad_request(format!(
            "parameter at: {error}; expected RFC 3339, such as 2026-01-31T12:00:00Z, or Unix milliseconds"
        ))
    })?;
    Ok(u64::try_from(parsed.timestamp_millis()).unwrap_or(0))
}

fn wait(query: &Query, anchor: PageAnchor) -> Result<Option<Duration>, Problem> {
    let Some(seconds) = query.parse::<u64>("wait")? else {
        return Ok(None);
    };
    if seconds > MAX_WAIT_SECONDS {
        return Err(Problem::bad_request(format!(
            "parameter wait: {seconds} s are over the limit of {MAX_WAIT_SECONDS} s; repeat the request after an empty page"
        )));
    }
    if !matches!(anchor, PageAnchor::After(_)) {
        return Err(Problem::bad_request(
            "parameter wait: only a page behind after= can be waited for",
        ));
    }
    Ok(Some(Duration::from_secs(seconds)))
}

fn answer(page: &Page, cursors: &PageCursors, ndjson: bool) -> Response {
    // A flat struct of ids and flags: serializing it cannot fail.
    let cursors = serde_json::to_string(cursors).unwrap_or_default();
    let members = cursors.trim_start_matches('{');
    let (open, separator, close, kind) = match ndjson {
        true => (
            String::new(),
            b'\n',
            format!("{{\"kind\":\"page\",{members}\n"),
            NDJSON,
        ),
        false => (
            "{\"events\":[".to_owned(),
            b',',
            format!("],{members}"),
            "application/json",
        ),
    };
    let mut out = open.into_bytes();
    for (index, item) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(separator);
        }
        for_readers(&mut out, &item.event);
    }
    if ndjson && !page.items.is_empty() {
        out.push(separator);
    }
    out.extend_from_slice(close.as_bytes());
    let mut response = Body::from(out).into_response();
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        for text in [
            "1763700000000",
            "2025-11-21T04:40:00Z",
            "2025-11-21T05:40:00.000 01:00",
            "2025-11-21T05:40:00+01:00",
        ] {
            assert_eq!(unix_milliseconds(text), Ok(1_763_700_000_000), "{text}");
        }
        assert_eq!(unix_milliseconds("1969-12-31T23:00:00Z"), Ok(0));
        for text in ["", "yesterday", "2025-11-21", "-1"] {
            let problem = unix_milliseconds(text).expect_err("refused");
            assert!(format!("{problem:?}").contains("parameter at"), "{text}");
        }
    }
}
