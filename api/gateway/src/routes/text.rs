//! `GET /v1/runs/{run}/text`: what a run wrote, as plain text.
//!
//! Output and logs, or the channels that are asked for, in the order in which they came, behind
//! `after=ID` or from the beginning; `ansi=strip` leaves escape sequences out. [`runcast_history::text::plain_text`] says
//! what the text is exactly, and how a gap is told in it. With `follow` it goes on until the run is over,
//! as `tail -f` does; without, it ends with what there is. It is sent as it is read: memory does
//! not grow with it, and a reader who takes nothing costs nothing.
//!
//! The text of a finished run does not change: it has an `ETag`, is compressed where the client takes
//! that, and answers `If-None-Match` and a `Range` of bytes, for which it has to be
//! [measured](runcast_history::text::byte_index) once; where that takes too long the whole is sent instead. A text
//! that breaks off because the server drains or a store fails is cut, which every client notices.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::Stream;
use http_range_header::parse_range_header;
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tracing::warn;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::runs::admit;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::etag;
use crate::extract::query::Query;
use crate::middleware::compression::compression;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::open_streams::{StreamRegistration, ended};
use runcast_fanout::sse::DRAINS;
use runcast_history::filter::Filter;
use runcast_history::text::byte_index::{ByteIndexCache, Mark, Subject};
use runcast_history::text::chunk::text_channels;
use runcast_history::text::plain_text::PlainText;

/// How long a follower waits before it looks by itself: a safeguard, since the tail wakes it.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(text))
        .layer(compression())
        .layer(map_response(weaken))
        .layer(Extension(Arc::<ByteIndexCache>::default()))
}

/// What is to be sent of a text.
struct ByteSlice {
    subject: Subject,
    /// Where to start making it.
    from: Mark,
    /// Bytes to leave out from there, and how many to send then.
    skip: u64,
    take: u64,
    follow: bool,
    /// By what it is followed.
    opened: Option<StreamRegistration>,
}

/// What a run wrote, as plain text.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/text",
    params(
        ("after" = Option<String>, Query, description = "What was written behind this id"),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `log`"),
        ("ansi" = Option<String>, Query, description = "`keep` escape sequences, or `strip` them"),
        ("follow" = Option<bool>, Query, description = "Go on until the run is over"),
        ("Range" = Option<String>, Header, description = "Bytes of a finished run"),
    ),
    responses(
        (status = 200, description = "The text", body = String),
        (status = 206, description = "The bytes that were asked for", body = String),
        (status = 304, description = "It is the one that `If-None-Match` names"),
        (status = 416, description = "The text has no such bytes"),
    ),
    security(("bearer" = [Scope::Read]))
)]
async fn text(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(measures): Extension<Arc<ByteIndexCache>>,
    method: Method,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = text_filter(&query)?;
    let strip = strips(&query)?;
    let follow = query.flag("follow")?;
    let after = query.cursor("after")?.unwrap_or(EventId::ZERO);
    let (run, coverage) = admit(&gateway, &principal, Scope::Read, &id).await?;
    let reader = gateway.hub().reader();
    let finished = coverage.ended && reader.end(run).await? <= coverage.watermark;
    let subject = Subject {
        run,
        after,
        upto: coverage.watermark,
        filter,
        strip,
    };
    let mut piece = ByteSlice::whole(subject, follow && !finished);
    if !finished {
        let control = if follow {
            "no-cache, no-transform"
        } else {
            "no-store"
        };
        piece.subject.upto = EventId::new(u64::MAX, u64::MAX);
        piece.opened = follow.then(|| gateway.access().openings().open(&principal));
        return Ok(answer(&gateway, piece, StatusCode::OK, control));
    }
    let tag = tag(&piece.subject);
    let control = "private, no-cache";
    if etag::names(&headers, &header::IF_NONE_MATCH, &tag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        mark(&mut response, control, &tag);
        return Ok(response);
    }
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| parse_range_header(text).ok())
        .filter(|_| method == Method::GET)
        .filter(|_| {
            let condition = headers.get(header::IF_RANGE);
            condition.is_none_or(|condition| condition == tag)
        });
    let mut response = None;
    if let Some(range) = range
        && let Some(measure) = measures.of(reader, &piece.subject).await?
    {
        match range.validate(measure.length).as_deref() {
            Ok([range]) => {
                if let Some(mark) = measure.mark(*range.start()) {
                    piece.from = mark.clone();
                    piece.skip = range.start() - mark.offset;
                }
                piece.take = range.end() - range.start() + 1;
                let (of, size) = (measure.length, piece.take);
                let shown = format!("bytes {}-{}/{of}", range.start(), range.end());
                let mut partial = answer(&gateway, piece, StatusCode::PARTIAL_CONTENT, control);
                set(&mut partial, header::CONTENT_RANGE, &shown);
                set(&mut partial, header::CONTENT_LENGTH, &size.to_string());
                mark(&mut partial, control, &tag);
                return Ok(partial);
            }
            Ok(_) => {}
            Err(_unsatisfiable) => {
                let detail = format!("the text has {} bytes", measure.length);
                let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
                let mut refused = problem.into_response();
                let shown = format!("bytes */{}", measure.length);
                set(&mut refused, header::CONTENT_RANGE, &shown);
                response = Some(refused);
            }
        }
    }
    let mut response = response.unwrap_or_else(|| answer(&gateway, piece, StatusCode::OK, control));
    mark(&mut response, control, &tag);
    Ok(response)
}

impl ByteSlice {
    fn whole(subject: Subject, follow: bool) -> Self {
        Self {
            from: Mark {
                offset: 0,
                cursor: subject.after,
                plain: PlainText::new(subject.strip),
            },
            subject,
            skip: 0,
            take: u64::MAX,
            follow,
            opened: None,
        }
    }

    /// What of these bytes is to be sent.
    fn cut(&mut self, bytes: Vec<u8>) -> Bytes {
        let mut bytes = Bytes::from(bytes);
        let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        let rest = bytes.split_off(skipped);
        self.skip -= skipped as u64;
        let taken = usize::try_from(self.take).map_or(rest.len(), |take| take.min(rest.len()));
        self.take -= taken as u64;
        rest.slice(..taken)
    }
}

/// The channels of a text; all of it if nothing is said.
///
/// # Errors
/// 400 for a channel without text.
pub(super) fn text_filter(query: &Query) -> Result<Filter, Problem> {
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

fn strips(query: &Query) -> Result<bool, Problem> {
    match query.get("ansi") {
        None | Some("keep") => Ok(false),
        Some("strip") => Ok(true),
        Some(_) => Err(Problem::bad_request(
            "parameter ansi: expected keep or strip",
        )),
    }
}

fn answer(
    gateway: &Gateway,
    piece: ByteSlice,
    status: StatusCode,
    control: &'static str,
) -> Response {
    let follow = piece.follow;
    let body = Body::from_stream(bytes(gateway.clone(), piece));
    let mut response = (status, body).into_response();
    set(
        &mut response,
        header::CONTENT_TYPE,
        "text/plain; charset=utf-8",
    );
    set(&mut response, header::CACHE_CONTROL, control);
    if follow {
        let headers = response.headers_mut();
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    response
}

/// The bytes of a piece, as they are read.
fn bytes(gateway: Gateway, mut piece: ByteSlice) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream! {
        let hub = gateway.hub();
        let Subject { run, upto, filter, .. } = piece.subject.clone();
        let watch = piece.follow.then(|| hub.watch(run));
        let mut changes = watch.as_ref().map(|watch| watch.changes());
        let mut cursor = piece.from.cursor;
        let mut plain = piece.from.plain.clone();
        while piece.take > 0 {
            if let Some(changes) = &mut changes {
                changes.mark_unchanged();
            }
            let batch = match hub.reader().batch(run, cursor, &filter).await {
                Ok(batch) => batch,
                Err(error) => {
                    warn!(%run, %error, "a text breaks off");
                    yield Err(io::Error::other(error));
                    return;
                }
            };
            let mut out = Vec::new();
            for item in batch.items.iter().filter(|item| item.event.id <= upto) {
                plain.push(&mut out, item);
            }
            let out = piece.cut(out);
            if !out.is_empty() {
                yield Ok(out);
            }
            let moved = batch.upto > cursor;
            cursor = batch.upto;
            if batch.ended || cursor >= upto {
                return;
            }
            let Some(changes) = &mut changes else {
                if moved && !batch.caught_up {
                    continue;
                }
                return;
            };
            let ending = piece.opened.as_ref().and_then(StreamRegistration::ending);
            // Whether the run is over is said only where nothing follows.
            if moved && ending.is_none() {
                continue;
            }
            let reason = tokio::select! {
                biased;
                ending = ended(piece.opened.as_ref()) => ending.reason(),
                () = hub.stop().cancelled() => DRAINS,
                changed = timeout(LOOK_EVERY, changes.changed()) => match changed {
                    Ok(Err(_gone)) => DRAINS,
                    _ => continue,
                },
            };
            let mut out = Vec::new();
            plain.note(&mut out, &format!("runcast: {reason}; go on with ?after={cursor}"));
            yield Ok(out.into());
            // An error would take what is not written yet with it: the library writes when nothing more comes at once.
            tokio::task::yield_now().await;
            yield Err(io::Error::new(io::ErrorKind::Interrupted, reason));
            return;
        }
    }
}

/// Names exactly these bytes.
fn tag(subject: &Subject) -> HeaderValue {
    let described = format!("1 {subject:?}");
    etag::of(&Sha256::digest(described.as_bytes()))
}

fn mark(response: &mut Response, control: &'static str, tag: &HeaderValue) {
    response.headers_mut().insert(header::ETAG, tag.clone());
    set(response, header::CACHE_CONTROL, control);
    set(response, header::ACCEPT_RANGES, "bytes");
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    // All of them are digits and ASCII words.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A compressed text has other bytes than the plain one: its tag names it weakly.
async fn weaken(mut response: Response) -> Response {
    let headers = response.headers();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(Ok(tag)) = headers.get(header::ETAG).map(HeaderValue::to_str)
        && !tag.starts_with("W/")
    {
        let weak = format!("W/{tag}");
        set(&mut response, header::ETAG, &weak);
    }
    response
}
