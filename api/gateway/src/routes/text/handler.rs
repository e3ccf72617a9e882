//! `GET /v1/runs/{run}/text`: what a run wrote, as plain text.
//!
//! Output and logs, or the channels in `channel=`, in the order in which they were appended, behind
//! `after=ID` or from the beginning; `ansi=strip` removes escape sequences.
//! [`runcast_history::text::plain_text`] defines the text exactly: a gap is a line that begins with
//! one RS character (0x1e). With `follow` the text goes on until the run is over, as `tail -f`
//! does; without it the text ends with what exists now. It is sent as it is read: memory does not
//! grow with it, and a client that reads nothing costs nothing.
//!
//! The text of a finished run does not change: it has an `ETag`, is compressed where the client
//! accepts that, and answers `If-None-Match` and a `Range` of bytes. A range needs an
//! [index](runcast_history::text::byte_index), which is built once; if that takes too long, the
//! whole text is sent instead. A text that breaks off because the server drains or a store fails
//! ends without the end of its body, which every client notices.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use http_range_header::{ParsedRanges, parse_range_header};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use sha2::{Digest as _, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::byte_slice::{ByteSlice, set_header};
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::etag;
use crate::extract::query::Query;
use crate::middleware::compression::compression;
use crate::problem::Problem;
use crate::routes::run_access::authorize_run;
use runcast_access::Scope;
use runcast_history::filter::Filter;
use runcast_history::text::byte_index::{ByteIndexCache, TextSelection};
use runcast_history::text::chunk::text_channels;

/// The text of a finished run may be cached, if it is revalidated.
const FINISHED_CACHE_CONTROL: &str = "private, no-cache";

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(text))
        .layer(compression())
        .layer(map_response(weaken))
        .layer(Extension(Arc::<ByteIndexCache>::default()))
}

/// Returns what a run wrote, as plain text.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/text",
    params(
        ("after" = Option<String>, Query, description = "Only what was written behind this id"),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `log`"),
        ("ansi" = Option<String>, Query, description = "`keep` escape sequences, or `strip` them"),
        ("follow" = Option<bool>, Query, description = "Go on until the run is over"),
        ("Range" = Option<String>, Header, description = "Bytes of a finished run"),
    ),
    responses(
        (status = 200, description = "The text", body = String),
        (status = 206, description = "The range of bytes", body = String),
        (status = 304, description = "It is the one that `If-None-Match` names"),
        (status = 416, description = "The text has no such range"),
    ),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("text")))
)]
async fn text(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(indexes): Extension<Arc<ByteIndexCache>>,
    method: Method,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = text_filter(&query)?;
    let strip = strips_ansi(&query)?;
    let follow = query.flag("follow")?;
    let after = query.cursor("after")?.unwrap_or(EventId::ZERO);
    let (run, coverage) = authorize_run(&gateway, &principal, Scope::Read, &id).await?;
    // 1. A text is finished when the run is over and all of it is stored.
    let end = match coverage.ended {
        true => Some(gateway.hub().reader().end(run).await?),
        false => None,
    };
    let is_finished = end.is_some_and(|end| end <= coverage.watermark);
    let mut slice = ByteSlice::whole(TextSelection {
        run,
        after,
        upto: coverage.watermark,
        revision: coverage.redaction_revision,
        filter,
        strip,
    });
    // 2. A text that still grows is sent as it is read.
    if !is_finished {
        slice.subject.upto = EventId::new(u64::MAX, u64::MAX);
        slice.follow = follow.then(|| gateway.access().open_streams().open(&principal));
        let control = match follow {
            true => "no-cache, no-transform",
            false => "no-store",
        };
        return Ok(slice.response(&gateway, StatusCode::OK, control));
    }
    // 3. A finished text has a tag, and ranges.
    let tag = tag(&slice.subject);
    let mut response = if etag::names(&headers, &header::IF_NONE_MATCH, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let range = range(&headers, &tag).filter(|_| method == Method::GET);
        finished(&gateway, slice, range, &indexes).await?
    };
    response.headers_mut().insert(header::ETAG, tag);
    set_header(&mut response, header::CACHE_CONTROL, FINISHED_CACHE_CONTROL);
    set_header(&mut response, header::ACCEPT_RANGES, "bytes");
    Ok(response)
}

/// The range of bytes that the client asks for, unless it has another version of the text.
fn range(headers: &HeaderMap, tag: &HeaderValue) -> Option<ParsedRanges> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let condition = headers.get(header::IF_RANGE);
    condition
        .is_none_or(|condition| condition == tag)
        .then(|| parse_range_header(range).ok())?
}

/// The answer with a finished text: the range if it is one and the text can be indexed in time,
/// else the whole.
async fn finished(
    gateway: &Gateway,
    mut slice: ByteSlice,
    range: Option<ParsedRanges>,
    indexes: &ByteIndexCache,
) -> Result<Response, Problem> {
    let index = match range {
        Some(_) => {
            indexes
                .get_or_build(gateway.hub().reader(), &slice.subject)
                .await?
        }
        None => None,
    };
    let (Some(range), Some(index)) = (range, index) else {
        return Ok(slice.response(gateway, StatusCode::OK, FINISHED_CACHE_CONTROL));
    };
    let length = index.length;
    let validated = range.validate(length);
    let Ok(ranges) = validated else {
        let detail = format!("the text has {length} bytes");
        let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
        let mut response = problem.into_response();
        set_header(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes */{length}"),
        );
        return Ok(response);
    };
    // Several ranges are answered with the whole text.
    let [range] = &ranges[..] else {
        return Ok(slice.response(gateway, StatusCode::OK, FINISHED_CACHE_CONTROL));
    };
    let (first, last) = (*range.start(), *range.end());
    if let Some(mark) = index.mark(first) {
        slice.from = mark.clone();
        slice.skip_bytes = first - mark.offset;
    }
    let take_bytes = last - first + 1;
    slice.take_bytes = take_bytes;
    let mut response = slice.response(gateway, StatusCode::PARTIAL_CONTENT, FINISHED_CACHE_CONTROL);
    let content_range = format!("bytes {first}-{last}/{length}");
    set_header(&mut response, header::CONTENT_RANGE, &content_range);
    set_header(
        &mut response,
        header::CONTENT_LENGTH,
        &take_bytes.to_string(),
    );
    Ok(response)
}

/// The channels of a text; all with text if the query names none. 400 for a channel without text.
pub(crate) fn text_filter(query: &Query) -> Result<Filter, Problem> {
    let filter = query.filter()?;
    let kinds = [Kind::Output, Kind::Log];
    let other = filter
        .channels()
        .iter()
        .find(|channel| !kinds.contains(&channel.kind));
    match other {
        None => Ok(text_channels(&filter)),
        Some(channel) => Err(Problem::bad_request(format!(
            "channel {} has no text: expected output or log, optionally with :<variation>",
            channel.kind
        ))),
    }
}

fn strips_ansi(query: &Query) -> Result<bool, Problem> {
    match query.get("ansi") {
        None | Some("keep") => Ok(false),
        Some("strip") => Ok(true),
        Some(_) => Err(Problem::bad_request(
            "parameter ansi: expected keep or strip",
        )),
    }
}

/// The tag of exactly these bytes.
fn tag(subject: &TextSelection) -> HeaderValue {
    let described = format!("1 {subject:?}");
    etag::of(&Sha256::digest(described.as_bytes()))
}

/// Makes the tag of a compressed text weak: its bytes differ from those of the plain one.
async fn weaken(mut response: Response) -> Response {
    let headers = response.headers();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(Ok(tag)) = headers.get(header::ETAG).map(HeaderValue::to_str)
        && !tag.starts_with("W/")
    {
        let weak = format!("W/{tag}");
        set_header(&mut response, header::ETAG, &weak);
    }
    response
}
