//! Rate limits: counts each request, and bounds the streams that are open.
//!
//! This layer stands inside of [authorization](super::authorize), which leaves the principal in the
//! request's extensions: requests count for their principal, and without one for their address.
//! Requests that authorization answers 403 or 405 [count as well](RateSubject::record_denial). Not
//! counted are health checks, the page and its assets, and paths without a route: all of them cost
//! less than counting. A principal with [`Scope::Admin`] is not limited, except in signing in.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::denial::{DenialFormat, set_rate_limit_headers};
use super::rate_class::RateClass;
use super::route_policy::RouteMatch;
use crate::Gateway;
use crate::server::guarded_body::guarded;
use crate::server::handover::StreamHandoff;
use runcast_access::Scope;
use runcast_access::client_ip::ClientAddress;
use runcast_access::principal::Principal;
use runcast_access::rate_limit::concurrency::{LimitReached, Permit};
use runcast_access::rate_limit::failed_attempts::AttemptKey;
use runcast_access::rate_limit::subject::RateKey;
use runcast_access::rate_limit::{Decision, RateLimiter};

/// Middleware: counts a request, and gives a stream its permit.
pub async fn rate_limit(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let limits = gateway.limits();
    let Some(subject) = RateSubject::of(&request) else {
        return next.run(request).await;
    };
    // 1. Count the request, and deny it if that is one too many.
    let decision = subject.count(limits).await;
    let denied = decision
        .as_ref()
        .and_then(|decision| subject.format.if_denied(decision));
    if let Some(denied) = denied {
        return denied;
    }
    // 2. A stream needs one of the permits of its principal and its address.
    let permit = match subject.stream_permit(limits) {
        Ok(permit) => permit,
        Err(limit) => return subject.format.too_many_streams(limit),
    };
    // 3. Answer, and say what is left of the quotas.
    let mut response = next.run(request).await;
    if let Some(decision) = decision {
        set_rate_limit_headers(&decision, response.headers_mut());
    }
    match permit {
        Some(permit) => hold(response, permit),
        None => response,
    }
}

/// What a request counts for, and how.
pub struct RateSubject {
    class: RateClass,
    address: ClientAddress,
    key: RateKey,
    is_admin: bool,
    opens_stream: bool,
    /// The presented credential, if it was valid.
    valid: Option<AttemptKey>,
    format: DenialFormat,
}

impl RateSubject {
    /// The subject of this request, unless it is not counted.
    pub fn of(request: &Request) -> Option<Self> {
        let class = RouteMatch::rate_class(request);
        let extensions = request.extensions();
        let address = extensions.get::<ClientAddress>().copied();
        let address = address.filter(|_| class != RateClass::Uncounted)?;
        let principal = extensions.get::<Principal>();
        let counts = principal.filter(|_| class != RateClass::SignIn);
        Some(Self {
            class,
            address,
            key: counts.map_or_else(|| RateKey::at(address), RateKey::of),
            is_admin: principal.is_some_and(|principal| principal.holds(Scope::Admin)),
            opens_stream: class.opens_stream(request.uri()),
            valid: principal.and(extensions.get()).copied(),
            format: DenialFormat::of(request),
        })
    }

    /// Counts the request by the policies of its class, unless these do not limit its principal.
    async fn count(&self, limits: &RateLimiter) -> Option<Decision> {
        if let Some(valid) = self.valid {
            limits.failed_attempts().record_valid(valid);
        }
        let policies = self.class.policies();
        let is_exempt = self.is_admin && self.class != RateClass::SignIn;
        match is_exempt || policies.is_empty() {
            true => None,
            false => Some(limits.ask(self.key, policies, 1).await),
        }
    }

    /// Counts a request that authorization refuses with `answer`; too many are denied instead.
    pub async fn record_denial(self, limits: &RateLimiter, answer: Response) -> Response {
        let Some(decision) = self.count(limits).await else {
            return answer;
        };
        let mut answer = self.format.if_denied(&decision).unwrap_or(answer);
        set_rate_limit_headers(&decision, answer.headers_mut());
        answer
    }

    /// The permit of a request that opens a stream. Administrators are counted, not limited.
    fn stream_permit(&self, limits: &RateLimiter) -> Result<Option<Permit>, LimitReached> {
        if !self.opens_stream {
            return Ok(None);
        }
        let config = limits.rules();
        let limit = |limit: Option<u32>| limit.filter(|_| !self.is_admin);
        let permit = limits.streams().take(
            (self.key, limit(config.streams)),
            (RateKey::at(self.address), limit(config.streams_by_address)),
        );
        permit.map(Some)
    }
}

/// A stream keeps its permit until it ends, whether a writer thread or the HTTP library sends it.
fn hold(response: Response, permit: Permit) -> Response {
    if let Some(stream) = response.extensions().get::<StreamHandoff>() {
        stream.hold(permit);
        return response;
    }
    if !response.status().is_success() {
        return response;
    }
    response.map(|body| guarded(body, permit))
}
