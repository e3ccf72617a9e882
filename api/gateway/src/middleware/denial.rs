//! The answer to a request that a limit denies.
//!
//! A program gets a problem document with status 429. A request for server-sent events gets 200 and
//! a stream that says `closing` and ends: for an `EventSource` every other status is final, while
//! after this one it reconnects when `retry:` tells it to. The wait differs from client to client,
//! so that they do not all come back in the same moment.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use rand::RngExt as _;
use runcast_common::protocol::event_id::EventId;
use serde_json::json;

use super::rate_class::RateClass;
use super::route_policy::RouteMatch;
use crate::extract::query::Query;
use crate::extract::sse::{as_events, resume};
use crate::problem::Problem;
use runcast_access::rate_limit::concurrency::LimitReached;
use runcast_access::rate_limit::{Decision, Denial};
use runcast_fanout::multi_cursor;

/// Shortest wait of a denied stream before it reconnects.
const MIN_RECONNECT: Duration = Duration::from_secs(10);

/// A random part of this is added to the wait of each stream.
const RECONNECT_SPREAD: Duration = Duration::from_secs(10);

/// How to deny a request; read from it before it is handed on.
pub(super) struct DenialFormat {
    /// The cursor of a request for server-sent events.
    cursor: Option<String>,
}

impl DenialFormat {
    pub(super) fn of(request: &Request) -> Self {
        let accepts = request.headers().get_all(header::ACCEPT).iter();
        let mut accepts = accepts.filter_map(|value| value.to_str().ok());
        let is_event_stream = RouteMatch::rate_class(request) == RateClass::Stream
            && accepts.any(|value| value.contains("text/event-stream"));
        Self {
            cursor: is_event_stream.then(|| cursor(request)),
        }
    }

    /// The answer to a request that a policy denies.
    pub(super) fn denied(&self, denial: &Denial) -> Response {
        match &self.cursor {
            Some(cursor) => closing_stream(cursor, &denial.reason(), denial.retry_after),
            None => Problem::from(*denial).into_response(),
        }
    }

    /// The answer if a policy denies the request, with the headers that say what is left.
    pub(super) fn if_denied(&self, decision: &Decision) -> Option<Response> {
        let mut response = self.denied(&decision.denial()?);
        set_rate_limit_headers(decision, response.headers_mut());
        Some(response)
    }

    /// The answer if too many streams are open.
    pub(super) fn too_many_streams(&self, limit: LimitReached) -> Response {
        let reason = match limit {
            LimitReached::Principal => "too many streams of the same user or token are open",
            LimitReached::Address => "too many streams to the same address are open",
        };
        match &self.cursor {
            Some(cursor) => closing_stream(cursor, reason, MIN_RECONNECT),
            None => Problem::too_many(reason, MIN_RECONNECT).into_response(),
        }
    }
}

/// The cursor that the client resumes from: its own, else the beginning, as the route writes it.
fn cursor(request: &Request) -> String {
    let query = Query::of(request.uri());
    let resumed = resume(request.headers(), &query).ok().flatten();
    let resumed = resumed.filter(|cursor| is_printable(cursor));
    resumed.map_or_else(
        || match request.uri().path() {
            "/v1/watch" => multi_cursor::encode(std::iter::empty()),
            _ => EventId::ZERO.to_string(),
        },
        str::to_owned,
    )
}

/// A cursor is sent back as it came, so it must not end its line.
fn is_printable(cursor: &str) -> bool {
    !cursor.is_empty() && cursor.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A stream that says why it ends, and when to reconnect.
fn closing_stream(cursor: &str, reason: &str, retry_after: Duration) -> Response {
    let spread = RECONNECT_SPREAD.mul_f64(rand::rng().random_range(0.0..1.0));
    let wait = retry_after.max(MIN_RECONNECT) + spread;
    let data = json!({"kind": "closing", "reason": reason});
    let frame = format!(
        "retry: {}\nevent: closing\ndata: {data}\nid: {cursor}\n\n",
        wait.as_millis()
    );
    let frames = stream::iter([Ok::<_, Infallible>(frame)]);
    as_events(Body::from_stream(frames).into_response())
}

/// `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
pub(super) fn set_rate_limit_headers(decision: &Decision, headers: &mut HeaderMap) {
    let statuses = decision.quota_statuses();
    if statuses.is_empty() {
        return;
    }
    let policies = statuses.iter().map(|(policy, quota, _)| {
        let window = seconds(quota.full_after());
        format!("\"{}\";q={};w={window}", policy.name(), quota.burst)
    });
    let remaining = statuses.iter().map(|(policy, _, status)| {
        let reset = seconds(status.reset);
        format!("\"{}\";r={};t={reset}", policy.name(), status.remaining)
    });
    let policies = policies.collect::<Vec<_>>().join(", ");
    let remaining = remaining.collect::<Vec<_>>().join(", ");
    for (name, value) in [("ratelimit-policy", policies), ("ratelimit", remaining)] {
        // Letters, digits and punctuation alone: always a valid value.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use runcast_common::rate_limit::QuotaStatus;

    use super::*;
    use runcast_access::rate_limit::Source;
    use runcast_access::rate_limit::policy::{LimitConfig, Policy};

    #[test]
    fn rate_limit_headers_are_structured_fields() {
        let quota = LimitConfig::default()
            .quota(Policy::Read)
            .expect("it is on");
        let status = QuotaStatus {
            allowed: true,
            remaining: 599,
            reset: Duration::from_millis(100),
            retry_after: Duration::ZERO,
        };
        let search = LimitConfig::default()
            .quota(Policy::Search)
            .expect("it is on");
        let decision = Decision::new(
            Source::Redis,
            vec![
                (Policy::Read, quota, status),
                (Policy::Search, search, status),
            ],
        );
        let mut headers = HeaderMap::new();
        set_rate_limit_headers(&decision, &mut headers);
        assert_eq!(
            headers["ratelimit-policy"],
            "\"read\";q=600;w=60, \"search\";q=30;w=60"
        );
        assert_eq!(
            headers["ratelimit"],
            "\"read\";r=599;t=1, \"search\";r=599;t=1"
        );
    }

    #[test]
    fn a_cursor_that_could_end_its_line_is_not_sent_back() {
        assert!(is_printable("1700000000000-5") && is_printable("wAbc_-"));
        assert!(!is_printable("1\ndata: forged") && !is_printable("1 2") && !is_printable(""));
    }
}
