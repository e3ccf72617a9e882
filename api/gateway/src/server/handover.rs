//! How the answer of a handler becomes a socket of a writer thread.
//!
//! A handler that answers with the stream of one run marks its response with a [`StreamHandoff`],
//! which carries the viewer. On a plain HTTP/1.1 connection the server puts the head of the answer
//! and the viewer into the connection's [`Handover`], never completes the answer, and takes the
//! socket from the HTTP library. On any other connection the viewer becomes the body of the answer.
//! [`super`] says why.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::{Response, header};
use bytes::Bytes;
use futures::StreamExt as _;

use runcast_access::rate_limit::concurrency::Permit;
use runcast_fanout::body_stream;
use runcast_fanout::viewer::Viewer;

/// Marks an answer as a stream: its body is what this viewer is sent. Taken once.
#[derive(Debug, Clone)]
pub struct StreamHandoff(Arc<Mutex<Option<Viewer>>>);

impl StreamHandoff {
    /// The mark for this viewer.
    pub fn new(viewer: Viewer) -> Self {
        Self(Arc::new(Mutex::new(Some(viewer))))
    }

    /// The viewer holds this permit until it is gone.
    pub fn hold(&self, permit: Permit) {
        if let Some(viewer) = &mut *lock(&self.0) {
            viewer.permits().stream = Some(permit);
        }
    }

    fn take(&self) -> Option<Viewer> {
        lock(&self.0).take()
    }
}

/// The viewer that an answer is the stream of, if it is one.
pub(super) fn take_viewer(response: &mut Response<Body>) -> Option<Viewer> {
    let handoff = response.extensions_mut().remove::<StreamHandoff>()?;
    handoff.take()
}

/// What a connection leaves behind for the writer thread: the head of the answer, and the viewer.
#[derive(Debug, Clone, Default)]
pub(super) struct Handover(Arc<Mutex<Option<(Bytes, Viewer)>>>);

impl Handover {
    /// Leaves the stream that this answer begins.
    pub(super) fn put(&self, response: &Response<Body>, viewer: Viewer) {
        *lock(&self.0) = Some((head(response), viewer));
    }

    pub(super) fn take(&self) -> Option<(Bytes, Viewer)> {
        lock(&self.0).take()
    }
}

/// Makes the stream the body of the answer, for a connection that is more than a socket.
pub(super) fn set_body(response: &mut Response<Body>, viewer: Viewer) {
    // The length of the empty body that the answer has had so far.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    let frames = body_stream::viewer_body(viewer).map(Ok::<_, Infallible>);
    *response.body_mut() = Body::from_stream(frames);
}

/// The head of an answer whose body ends with the connection.
fn head(response: &Response<Body>) -> Bytes {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
    let mut head = format!(
        "HTTP/1.1 {} {reason}\r\ndate: {date}\r\nconnection: close\r\n",
        status.as_u16()
    )
    .into_bytes();
    for (name, value) in response.headers() {
        // These describe how a body is framed, and this one is not framed.
        if matches!(
            *name,
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION
        ) {
            continue;
        }
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
