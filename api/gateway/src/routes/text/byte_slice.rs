//! A part of the text of a run, and the body that sends it.
//!
//! The text is rendered from events while it is sent, one batch at a time. Time: a followed text is
//! read when the tail of the run wakes it, and at least every [`READ_INTERVAL`].

use std::io;
use std::time::Duration;

use async_stream::stream;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::Stream;
use tokio::time::timeout;
use tracing::warn;

use crate::Gateway;
use runcast_access::open_streams::{StreamRegistration, revoked};
use runcast_fanout::sse::DRAIN_REASON;
use runcast_history::text::byte_index::{Mark, TextSelection};
use runcast_history::text::plain_text::PlainText;

/// How often a followed text is read without a wake-up: a safeguard, since the tail wakes it.
const READ_INTERVAL: Duration = Duration::from_secs(60);

/// The part of a text that is sent.
pub(super) struct ByteSlice {
    pub(super) subject: TextSelection,
    /// Where to start rendering it.
    pub(super) from: Mark,
    /// Bytes to leave out from there.
    pub(super) skip_bytes: u64,
    /// Bytes to send then.
    pub(super) take_bytes: u64,
    /// Of a text that is followed: what revokes it.
    pub(super) follow: Option<StreamRegistration>,
}

impl ByteSlice {
    /// The whole text.
    pub(super) fn whole(subject: TextSelection) -> Self {
        Self {
            from: Mark {
                offset: 0,
                cursor: subject.after,
                plain: PlainText::new(subject.strip),
            },
            subject,
            skip_bytes: 0,
            take_bytes: u64::MAX,
            follow: None,
        }
    }

    /// The answer that sends this part.
    pub(super) fn response(
        self,
        gateway: &Gateway,
        status: StatusCode,
        control: &'static str,
    ) -> Response {
        let is_followed = self.follow.is_some();
        let body = Body::from_stream(bytes(gateway.clone(), self));
        let mut response = (status, body).into_response();
        set_header(
            &mut response,
            header::CONTENT_TYPE,
            "text/plain; charset=utf-8",
        );
        set_header(&mut response, header::CACHE_CONTROL, control);
        if is_followed {
            let headers = response.headers_mut();
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
        response
    }

    /// Cuts the next bytes of the text to those that are sent.
    fn cut(&mut self, bytes: Vec<u8>) -> Bytes {
        let mut bytes = Bytes::from(bytes);
        let at_most = |limit: u64, length: usize| {
            usize::try_from(limit).map_or(length, |limit| limit.min(length))
        };
        let skipped = at_most(self.skip_bytes, bytes.len());
        let rest = bytes.split_off(skipped);
        self.skip_bytes -= skipped as u64;
        let sent = at_most(self.take_bytes, rest.len());
        self.take_bytes -= sent as u64;
        rest.slice(..sent)
    }
}

/// The bytes of a slice, as they are read.
fn bytes(gateway: Gateway, mut slice: ByteSlice) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream! {
        let hub = gateway.hub();
        let TextSelection { run, upto, filter, .. } = slice.subject.clone();
        let watch = slice.follow.is_some().then(|| hub.watch(run));
        let mut changes = watch.as_ref().map(|watch| watch.changes());
        let mut cursor = slice.from.cursor;
        let mut plain = slice.from.plain.clone();
        while slice.take_bytes > 0 {
            // 1. Read what follows, and send what of it belongs to the slice.
            if let Some(changes) = &mut changes {
                changes.mark_unchanged();
            }
            let batch = match hub.reader().batch(run, cursor, &filter).await {
                Ok(batch) => batch,
                Err(error) => {
                    warn!(%run, %error, "cannot read on; the text breaks off");
                    yield Err(io::Error::other(error));
                    return;
                }
            };
            let mut out = Vec::new();
            for item in batch.items.iter().filter(|item| item.event.id <= upto) {
                plain.push(&mut out, item);
            }
            let out = slice.cut(out);
            if !out.is_empty() {
                yield Ok(out);
            }
            // 2. End with the run, or with the slice; go on at once while there is more.
            let has_moved = batch.upto > cursor;
            cursor = batch.upto;
            if batch.ended || cursor >= upto {
                return;
            }
            let Some(changes) = &mut changes else {
                if has_moved && !batch.caught_up {
                    continue;
                }
                return;
            };
            let revocation = slice.follow.as_ref().and_then(StreamRegistration::revocation);
            // Only a batch that is empty says whether the run is over.
            if has_moved && revocation.is_none() {
                continue;
            }
            // 3. Wait for more, or for what ends the answer.
            let reason = tokio::select! {
                biased;
                revocation = revoked(slice.follow.as_ref()) => revocation.reason(),
                () = hub.stop().cancelled() => DRAIN_REASON,
                changed = timeout(READ_INTERVAL, changes.changed()) => match changed {
                    Ok(Err(_gone)) => DRAIN_REASON,
                    _ => continue,
                },
            };
            let mut out = Vec::new();
            plain.push_note(&mut out, &format!("runcast: {reason}; go on with ?after={cursor}"));
            yield Ok(out.into());
            // An error discards what is not written yet, and the library writes when nothing more
            // comes at once.
            tokio::task::yield_now().await;
            yield Err(io::Error::new(io::ErrorKind::Interrupted, reason));
            return;
        }
    }
}

pub(super) fn set_header(response: &mut Response, name: HeaderName, value: &str) {
    // Digits and ASCII words alone: always a valid value.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
