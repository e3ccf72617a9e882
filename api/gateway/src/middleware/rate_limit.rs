//! Limits around the routes.
//!
//! Two layers around the [guard](crate::middleware::authorize), which leaves the principal in a request's extensions: outside of it
//! [`guesses`] refuses an address that showed wrong credentials too often, inside [`rates`] counts the request for it.
//! Without a principal it counts for its address. Requests that the guard refuses to somebody it knows, or by their method,
//! [count as well](RateSubject::refused). Not counted are health checks, the page and its assets, and what there is no route
//! for: all of them cost less than counting. Who holds [`Scope::Admin`] is not limited, but in signing in.
//!
//! A request for server-sent events that is refused is answered by a stream which says so and ends: any other status than
//! 200 is the end for an `EventSource`, which would never come back, while after this one it does when it was asked to.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use rand::RngExt as _;
use runcast_common::protocol::event_id::EventId;
use serde_json::json;

use crate::Gateway;
use crate::extract::credential::ticket;
use crate::extract::query::Query;
use crate::problem::Problem;
use crate::routes::stream::{as_events, resume};
use crate::server::accept::StreamHandoff;
use crate::server::guarded_body::holding;
use runcast_access::Scope;
use runcast_access::client_ip::ClientAddress;
use runcast_access::principal::Principal;
use runcast_access::rate_limit::concurrency::{LimitReached, Permit};
use runcast_access::rate_limit::failed_attempts::AttemptKey;
use runcast_access::rate_limit::policy::Policy;
use runcast_access::rate_limit::subject::RateKey;
use runcast_access::rate_limit::{Decision, Denial, RateLimiter};
use runcast_fanout::multi_cursor;

/// Soonest moment for a stream that was refused to be asked for again, and by how much more each differs from others.
const COME_BACK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// What is asked for, as far as limits go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateClass {
    /// Nothing that is counted.
    Free,
    /// Something to read.
    Read,
    /// A stream of server-sent events.
    Stream,
    /// Text that goes on as a stream does.
    Followed,
    /// A search.
    Search,
    /// A change.
    Write,
    /// Events to be published.
    Ingest,
    /// To be signed in.
    SignIn,
}

impl RateClass {
    /// The class of a request.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let Some(path) = request.extensions().get::<MatchedPath>() else {
            return Self::Free;
        };
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match (path.as_str(), is_read) {
            ("/" | "/assets/{file}" | "/healthz" | "/readyz", _) => Self::Free,
            ("/v1/watch" | "/v1/feed" | "/v1/runs/{run}/stream", true) => Self::Stream,
            ("/v1/runs/{run}/text", true) if is_followed(request.uri()) => Self::Followed,
            ("/v1/runs/{run}/search", true) => Self::Search,
            ("/v1/runs/{run}/events", false) => Self::Ingest,
            ("/v1/session", false) if *request.method() == Method::POST => Self::SignIn,
            // Where it begins: what comes back from the issuer belongs to one that was counted.
            ("/v1/session/oidc", true) => Self::SignIn,
            (_, true) => Self::Read,
            (_, false) => Self::Write,
        }
    }

    const fn policies(self) -> &'static [Policy] {
        match self {
            Self::Free => &[],
            Self::Read | Self::Stream | Self::Followed => &[Policy::Read],
            Self::Search => &[Policy::Read, Policy::Search],
            Self::Write => &[Policy::Write],
            Self::Ingest => &[Policy::Ingest],
            Self::SignIn => &[Policy::SignIn],
        }
    }
}

/// Refuses who showed wrong credentials too often, and counts those that are shown.
pub async fn guesses(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    let limits = gateway.limits();
    let class = RateClass::of(&request);
    let has_ticket = class == RateClass::Stream && ticket(request.uri()).is_some();
    let shown = limits
        .failed_attempts()
        .shown(has_ticket, request.headers());
    if let Some(shown) = shown {
        request.extensions_mut().insert(shown);
    }
    let (Some(address), Some(quota)) = (address(&request), limits.rules().quota(Policy::Failed))
    else {
        return next.run(request).await;
    };
    if class == RateClass::Free || (shown.is_none() && class != RateClass::SignIn) {
        return next.run(request).await;
    }
    let refused = |retry_after| Denial {
        policy: Policy::Failed,
        retry_after,
    };
    let caller = Caller::of(&request);
    if let Some(wait) = limits.failed_attempts().wait(address, shown) {
        limits.count_refused(Policy::Failed);
        return caller.refused(&refused(wait));
    }
    let response = next.run(request).await;
    if response.status() != StatusCode::UNAUTHORIZED {
        return response;
    }
    if let Some(shown) = shown {
        limits.failed_attempts().was_wrong(shown);
    }
    let verdict = limits.ask(RateKey::at(address), &[Policy::Failed], 1).await;
    let used_up = verdict
        .standings()
        .iter()
        .any(|(.., standing)| standing.remaining == 0);
    if used_up {
        let one = Duration::from_micros(1).mul_f64(quota.micros_of_unit());
        let wait = verdict.refusal().map_or(one, |refusal| refusal.retry_after);
        limits.failed_attempts().let_wait(address, wait);
    }
    match verdict.refusal() {
        Some(refusal) => caller.refused(&refusal),
        None => response,
    }
}

/// Counts a request, and bounds the streams that are open.
pub async fn rates(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let limits = gateway.limits();
    let Some(asker) = RateSubject::of(&request) else {
        return next.run(request).await;
    };
    let verdict = asker.count(limits).await;
    let refused = verdict
        .as_ref()
        .and_then(|verdict| asker.caller.is_over(verdict));
    if let Some(refused) = refused {
        return refused;
    }
    let mut place = None;
    if matches!(asker.class, RateClass::Stream | RateClass::Followed) {
        let rules = limits.rules();
        let most = |most: Option<u32>| most.filter(|_| !asker.is_admin);
        let taken = limits.streams().take(
            (asker.subject, most(rules.streams)),
            (RateKey::at(asker.address), most(rules.streams_by_address)),
        );
        place = match taken {
            Ok(place) => Some(place),
            Err(full) => return asker.caller.is_full(full),
        };
    }
    let mut response = next.run(request).await;
    if let Some(verdict) = verdict {
        tell(&verdict, response.headers_mut());
    }
    match place {
        Some(place) => hold(response, place),
        None => response,
    }
}

/// Who asks for what, as far as limits go.
pub struct RateSubject {
    class: RateClass,
    address: ClientAddress,
    subject: RateKey,
    is_admin: bool,
    /// What was shown, if it was right.
    shown: Option<AttemptKey>,
    caller: Caller,
}

impl RateSubject {
    /// Whoever sent this request, unless it is not counted.
    #[must_use]
    pub fn of(request: &Request) -> Option<Self> {
        let class = RateClass::of(request);
        let address = address(request).filter(|_| class != RateClass::Free)?;
        let principal = request.extensions().get::<Principal>();
        let counts = principal.filter(|_| class != RateClass::SignIn);
        Some(Self {
            class,
            address,
            subject: counts.map_or_else(|| RateKey::at(address), RateKey::of),
            is_admin: principal.is_some_and(|principal| principal.holds(Scope::Admin)),
            shown: principal
                .and(request.extensions().get::<AttemptKey>())
                .copied(),
            caller: Caller::of(request),
        })
    }

    /// Asks the policies, unless this is somebody whom they do not limit.
    async fn count(&self, limits: &RateLimiter) -> Option<Decision> {
        if let Some(shown) = self.shown {
            limits.failed_attempts().was_right(shown);
        }
        match self.is_admin && self.class != RateClass::SignIn {
            true => None,
            false => Some(limits.ask(self.subject, self.class.policies(), 1).await),
        }
    }

    /// Counts a request that the guard does not let through: `answer`, unless there were too many.
    pub async fn refused(self, limits: &RateLimiter, answer: Response) -> Response {
        let Some(verdict) = self.count(limits).await else {
            return answer;
        };
        let mut answer = self.caller.is_over(&verdict).unwrap_or(answer);
        tell(&verdict, answer.headers_mut());
        answer
    }
}

fn is_followed(uri: &Uri) -> bool {
    Query::of(uri).flag("follow").unwrap_or(false)
}

fn address(request: &Request) -> Option<ClientAddress> {
    request.extensions().get::<ClientAddress>().copied()
}

/// A stream keeps its place until it ends, whoever carries it.
fn hold(response: Response, place: Permit) -> Response {
    if let Some(streamed) = response.extensions().get::<StreamHandoff>() {
        streamed.hold(place);
        return response;
    }
    if !response.status().is_success() {
        return response;
    }
    response.map(|body| holding(body, place))
}

/// `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.
fn tell(verdict: &Decision, headers: &mut HeaderMap) {
    let standings = verdict.standings();
    if standings.is_empty() {
        return;
    }
    let policies = standings.iter().map(|(policy, quota, _)| {
        let window = seconds(quota.full_after());
        format!("\"{}\";q={};w={window}", policy.name(), quota.burst)
    });
    let left = standings.iter().map(|(policy, _, standing)| {
        let reset = seconds(standing.reset);
        format!("\"{}\";r={};t={reset}", policy.name(), standing.remaining)
    });
    let policies = policies.collect::<Vec<_>>().join(", ");
    let left = left.collect::<Vec<_>>().join(", ");
    for (name, value) in [("ratelimit-policy", policies), ("ratelimit", left)] {
        // Letters, digits and punctuation alone: always a value.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// What is to be known of a request after it is gone, to refuse it.
struct Caller {
    /// The cursor of one that wants server-sent events.
    events: Option<String>,
}

impl Caller {
    fn of(request: &Request) -> Self {
        let accepts = request.headers().get_all(header::ACCEPT).iter();
        let mut accepts = accepts.filter_map(|value| value.to_str().ok());
        let wants = RateClass::of(request) == RateClass::Stream
            && accepts.any(|value| value.contains("text/event-stream"));
        let cursor = || {
            let query = Query::of(request.uri());
            let resumed = resume(request.headers(), &query).ok().flatten();
            let resumed = resumed.filter(|cursor| is_plain(cursor)).map(str::to_owned);
            // The beginning, as the route writes it.
            resumed.unwrap_or_else(|| match request.uri().path() {
                "/v1/watch" => multi_cursor::encode(std::iter::empty()),
                _ => EventId::ZERO.to_string(),
            })
        };
        Self {
            events: wants.then(cursor),
        }
    }

    fn refused(&self, refusal: &Denial) -> Response {
        match &self.events {
            Some(cursor) => come_back(cursor, &refusal.reason(), refusal.retry_after),
            None => Problem::from(*refusal).into_response(),
        }
    }

    /// The answer if a policy refuses.
    fn is_over(&self, verdict: &Decision) -> Option<Response> {
        let mut response = self.refused(&verdict.refusal()?);
        tell(verdict, response.headers_mut());
        Some(response)
    }

    fn is_full(&self, full: LimitReached) -> Response {
        let reason = match full {
            LimitReached::Principal => "too many streams of the same user or token are open",
            LimitReached::Address => "too many streams to the same address are open",
        };
        match &self.events {
            Some(cursor) => come_back(cursor, reason, COME_BACK.0),
            None => Problem::too_many(reason, COME_BACK.0).into_response(),
        }
    }
}

/// A cursor that is sent back as it came must not end its line.
fn is_plain(cursor: &str) -> bool {
    !cursor.is_empty() && cursor.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A stream that says why it ends, and when to come back.
fn come_back(cursor: &str, reason: &str, after: Duration) -> Response {
    let wait = after.max(COME_BACK.0) + COME_BACK.1.mul_f64(rand::rng().random_range(0.0..1.0));
    let data = json!({"kind": "closing", "reason": reason});
    let frame = format!(
        "retry: {}\nevent: closing\ndata: {data}\nid: {cursor}\n\n",
        wait.as_millis()
    );
    let frames = stream::iter([Ok::<_, Infallible>(frame)]);
    as_events(Body::from_stream(frames).into_response())
}

#[cfg(test)]
mod tests {
    use runcast_common::rate_limit::QuotaStatus;

    use super::*;
    use runcast_access::rate_limit::Source;
    use runcast_access::rate_limit::policy::LimitConfig;

    #[test]
    fn the_headers_are_structured_fields() {
        let quota = LimitConfig::default()
            .quota(Policy::Read)
            .expect("it is on");
        let standing = QuotaStatus {
            allowed: true,
            remaining: 599,
            reset: Duration::from_millis(100),
            retry_after: Duration::ZERO,
        };
        let search = LimitConfig::default()
            .quota(Policy::Search)
            .expect("it is on");
        let verdict = Decision::new(
            Source::Redis,
            vec![
                (Policy::Read, quota, standing),
                (Policy::Search, search, standing),
            ],
        );
        let mut headers = HeaderMap::new();
        tell(&verdict, &mut headers);
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
        assert!(is_plain("1700000000000-5") && is_plain("wAbc_-"));
        assert!(!is_plain("1\ndata: forged") && !is_plain("1 2") && !is_plain(""));
    }
}
