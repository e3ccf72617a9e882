//! Throttles addresses that present wrong credentials too often.
//!
//! This layer stands outside of [authorization](super::authorize): an address that has to wait is
//! refused before its credential is looked up. Every answer 401 counts as a failed attempt of the
//! address, over all replicas. A credential that was valid here lately is still let through
//! ([`runcast_access::rate_limit::failed_attempts`] says why). Signing in counts also where the
//! request carries no credential.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::denial::DenialFormat;
use super::rate_class::RateClass;
use super::route_policy::RouteMatch;
use crate::Gateway;
use crate::extract::credential::ticket;
use runcast_access::client_ip::ClientAddress;
use runcast_access::rate_limit::Denial;
use runcast_access::rate_limit::policy::Policy;
use runcast_access::rate_limit::subject::RateKey;

/// Middleware: refuses addresses that have to wait, and counts the answers 401.
pub async fn throttle_failed_attempts(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Response {
    let limits = gateway.limits();
    let class = RouteMatch::rate_class(&request);
    // 1. The key of the presented credential; the rate limit layer marks it as valid.
    let has_ticket = class == RateClass::Stream && ticket(request.uri()).is_some();
    let attempt = limits
        .failed_attempts()
        .shown(has_ticket, request.headers());
    if let Some(attempt) = attempt {
        request.extensions_mut().insert(attempt);
    }
    // 2. Only requests that could guess a credential are throttled.
    let address = request.extensions().get::<ClientAddress>().copied();
    let (Some(address), Some(quota)) = (address, limits.rules().quota(Policy::Failed)) else {
        return next.run(request).await;
    };
    if class == RateClass::Uncounted || (attempt.is_none() && class != RateClass::SignIn) {
        return next.run(request).await;
    }
    // 3. An address that has to wait is refused without a look-up.
    let format = DenialFormat::of(&request);
    if let Some(retry_after) = limits.failed_attempts().wait(address, attempt) {
        limits.record_denial(Policy::Failed);
        return format.denied(&Denial {
            policy: Policy::Failed,
            retry_after,
        });
    }
    let response = next.run(request).await;
    if response.status() != StatusCode::UNAUTHORIZED {
        return response;
    }
    // 4. Another failed attempt; the one that uses up the quota makes the address wait.
    if let Some(attempt) = attempt {
        limits.failed_attempts().record_invalid(attempt);
    }
    let decision = limits.ask(RateKey::at(address), &[Policy::Failed], 1).await;
    let mut statuses = decision.quota_statuses().iter();
    if statuses.any(|(.., status)| status.remaining == 0) {
        let one_attempt = Duration::from_micros(1).mul_f64(quota.micros_of_unit());
        let denial = decision.denial();
        let wait = denial.map_or(one_attempt, |denial| denial.retry_after);
        limits.failed_attempts().block(address, wait);
    }
    match decision.denial() {
        Some(denial) => format.denied(&denial),
        None => response,
    }
}
