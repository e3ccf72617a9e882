//! A body that keeps a guard (a permit, a counter) until it is sent, or the client is gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

struct GuardedBody<T> {
    body: Body,
    guard: Option<T>,
}

/// This body, with a guard that is dropped when it ends.
pub(crate) fn guarded<T: Send + Unpin + 'static>(body: Body, guard: T) -> Body {
    Body::new(GuardedBody {
        body,
        guard: Some(guard),
    })
}

impl<T: Unpin> HttpBody for GuardedBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.guard = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
