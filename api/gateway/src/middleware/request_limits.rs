//! Limits of every request: the size of its head, and the time in which its body arrives.
//!
//! The HTTP library limits the head as well, further out, and answers a bare 431; within its limits
//! the answer is a problem document. A body has [`BODY_DEADLINE`] to arrive. Published events are
//! exempt: they come for as long as a job prints, and have deadlines of their own.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::rate_class::RateClass;
use super::route_policy::RouteMatch;
use crate::problem::{BodyTimeout, Problem};

/// Longest path and query: a page that watches 200 runs names them within 8 KiB.
const MAX_TARGET_BYTES: usize = 16 * 1024;

/// Longest headers, names and values together: the cursor of 200 runs has 12 KiB.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Most headers; browsers behind proxies send about 40.
const MAX_HEADERS: usize = 80;

/// Longest time for a body of at most 64 KiB to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(20);

/// Middleware: refuses heads that are too large, and bodies that take too long.
pub async fn limit_request(request: Request, next: Next) -> Response {
    if let Err(problem) = check_head(&request) {
        return problem.into_response();
    }
    if RouteMatch::rate_class(&request) == RateClass::Ingest {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = match body.is_end_stream() {
        true => body,
        false => Body::new(TimedBody {
            body,
            deadline: Box::pin(sleep(BODY_DEADLINE)),
        }),
    };
    next.run(Request::from_parts(parts, body)).await
}

fn check_head(request: &Request) -> Result<(), Problem> {
    let target = request.uri().path_and_query();
    let target = target.map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET_BYTES {
        let detail =
            format!("a path and query of {target} bytes are over the limit of {MAX_TARGET_BYTES}");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, detail));
    }
    let headers = request.headers();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let detail = match headers.len() {
        count if count > MAX_HEADERS => {
            format!("{count} headers are over the limit of {MAX_HEADERS}")
        }
        _ if bytes > MAX_HEADER_BYTES => {
            format!("headers of {bytes} bytes are over the limit of {MAX_HEADER_BYTES}")
        }
        _ => return Ok(()),
    };
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Err(Problem::new(status, detail))
}

/// A body that fails once its deadline has passed.
struct TimedBody {
    body: Body,
    deadline: Pin<Box<Sleep>>,
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.deadline
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(BodyTimeout(BODY_DEADLINE).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
