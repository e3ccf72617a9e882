//! Authorization: every request that matched a route passes here, and none reaches a handler
//! otherwise.
//!
//! The [policy](super::route_policy) of the route is applied before a byte of the body is read. The
//! answers: 405 where the path has other methods, 401 without a valid credential, 403 without the
//! scope. The [`Principal`] of an admitted request is left in its extensions for the layers inside.
//! What depends on the run that a request is about is checked by its handler, with
//! [`Principal::may`].
//!
//! [Rate limits](super::rate_limit) count the requests that are admitted, and those that are
//! answered 403 or 405. [Failed attempts](super::failed_attempts), answered 401, have a limit of
//! their own.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::error;

use super::rate_limit::RateSubject;
use super::route_policy::{RouteAccess, RouteMatch};
use super::same_origin::same_origin;
use crate::Gateway;
use crate::extract::credential::presented;
use crate::problem::Problem;
use runcast_access::client_ip::ClientAddress;
use runcast_access::credential::PresentedCredential;
use runcast_access::principal::Principal;
use runcast_access::{AccessError, Scope};

/// Middleware: admits a request, or answers it.
pub async fn authorize(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    // 1. Who may call the route.
    let access = match request.extensions().get::<RouteMatch>() {
        Some(RouteMatch::Route(policy)) => policy.access,
        Some(RouteMatch::OtherMethods { allow, .. }) => {
            let answer = method_not_allowed(&request, allow.clone());
            return Ok(refuse(&gateway, RateSubject::of(&request), answer).await);
        }
        Some(RouteMatch::Undocumented) | None => RouteAccess::Missing,
    };
    match access {
        RouteAccess::Public => return Ok(next.run(request).await),
        RouteAccess::Missing => return Err(no_policy(&request)),
        RouteAccess::SignedIn | RouteAccess::Holds(_) | RouteAccess::Stream => {}
    }
    // 2. The credential. A browser sends the session cookie with requests of other sites as well.
    let is_stream = access == RouteAccess::Stream;
    let presented = presented(&request, gateway.is_secure(), is_stream);
    if matches!(presented, PresentedCredential::Session(_)) && !request.method().is_safe() {
        same_origin(request.method(), request.headers())
            .inspect_err(|_problem| gateway.access().metrics().denied("cross_site"))?;
    }
    // 3. The principal behind it.
    let mut principal = Principal::authenticate(gateway.access(), presented).await?;
    let address = request.extensions().get::<ClientAddress>();
    principal.address = address.map(|address| address.0);
    // 4. Its scope.
    let checked = check_scope(&principal, access);
    request.extensions_mut().insert(principal);
    match checked {
        Ok(()) => Ok(next.run(request).await),
        Err(denied) => {
            let answer = Problem::from(denied).into_response();
            Ok(refuse(&gateway, RateSubject::of(&request), answer).await)
        }
    }
}

fn check_scope(principal: &Principal, access: RouteAccess) -> Result<(), AccessError> {
    match access {
        // Administration is not about one run, so a credential that is bound to runs does not do.
        RouteAccess::Holds(Scope::Admin) => principal.may(Scope::Admin, None),
        RouteAccess::Holds(scope) => principal.must_hold(scope),
        RouteAccess::Stream => principal.must_hold(Scope::Read),
        RouteAccess::Public | RouteAccess::SignedIn | RouteAccess::Missing => Ok(()),
    }
}

/// Answers a request that is not admitted; it counts like an admitted one.
async fn refuse(gateway: &Gateway, subject: Option<RateSubject>, answer: Response) -> Response {
    match subject {
        Some(subject) => subject.record_denial(gateway.limits(), answer).await,
        None => answer,
    }
}

fn method_not_allowed(request: &Request, allow: HeaderValue) -> Response {
    let problem = Problem::method_not_allowed(request.method(), request.uri());
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn no_policy(request: &Request) -> Problem {
    error!(
        path = request.uri().path(),
        method = %request.method(),
        "the route documents no policy, so every request to it is refused; give it `security` and \
         `x-rate-class`"
    );
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the route documents no policy, so every request to it is refused",
    )
}
