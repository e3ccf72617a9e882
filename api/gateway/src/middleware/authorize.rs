//! The guard: every request that has found a route passes here first, and none reaches a handler by another way.
//!
//! It applies the [rule](super::route_policy) of the route, before a byte of the body is read: it answers 405 where the path takes
//! other methods, 401 to whom it does not know, 403 without the scope. Whom it lets through is left as a [`Principal`]
//! in the request's extensions, for what comes behind it. What depends on the run that a request is about is checked by
//! its handler, with [`Principal::may`].
//!
//! [Limits](super::rate_limit) count requests behind the guard, and those that it answers by 403 or 405 as well; what
//! is answered by 401 has a limit of its own.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use runcast_access::credential::PresentedCredential;
use tracing::error;

use crate::extract::credential::presented;
use crate::middleware::same_origin::same_origin;

use super::rate_limit::RateSubject;
use super::route_policy::{RouteMatch, RoutePolicies, RoutePolicy};
use crate::Gateway;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;

/// What the guard knows. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Guard {
    gateway: Gateway,
    rules: Arc<RoutePolicies>,
}

impl Guard {
    /// A guard of this gateway by these rules.
    #[must_use]
    pub fn new(gateway: Gateway, rules: RoutePolicies) -> Self {
        Self {
            gateway,
            rules: Arc::new(rules),
        }
    }
}

/// The middleware, to be the outermost `route_layer`.
///
/// # Errors
/// The answer to a request that is not let through.
pub async fn guard(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let path = parts.extensions.get::<MatchedPath>();
    let path = path.map_or("", MatchedPath::as_str);
    let rule = match guard.rules.find(path, &parts.method) {
        RouteMatch::Route(rule) => rule,
        RouteMatch::OtherMethods(allow) => {
            let answer = wrong_method(&parts, allow);
            return Ok(refused(&guard, Request::from_parts(parts, body), answer).await);
        }
        RouteMatch::Undocumented => RoutePolicy::Missing,
    };
    let scope = match rule {
        RoutePolicy::Public => return Ok(next.run(Request::from_parts(parts, body)).await),
        RoutePolicy::SignedIn => None,
        RoutePolicy::Holds(scope) => Some(scope),
        RoutePolicy::Stream => Some(Scope::Read),
        RoutePolicy::Missing => {
            error!(path, method = %parts.method, "a route has no rule: nobody may use it");
            return Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "nobody has said who may do this, so nobody may",
            ));
        }
    };
    let takes_ticket = rule == RoutePolicy::Stream;
    let access = guard.gateway.access();
    let presented = presented(&parts, guard.gateway.is_secure(), takes_ticket);
    // A cookie is sent with whatever another site makes a browser send.
    if matches!(presented, PresentedCredential::Session(_)) && !parts.method.is_safe() {
        same_origin(&parts.method, &parts.headers)
            .inspect_err(|_problem| access.meter().denied("cross_site"))?;
    }
    let principal = Principal::authenticate(access, presented).await?;
    let missing = match scope {
        // Administration is not about one run: whoever is bound to one has no part in it.
        Some(Scope::Admin) => principal.may(Scope::Admin, None).err(),
        Some(scope) => principal.must_hold(scope).err(),
        None => None,
    };
    parts.extensions.insert(principal);
    let request = Request::from_parts(parts, body);
    Ok(match missing {
        Some(denied) => {
            let answer = Problem::from(denied).into_response();
            refused(&guard, request, answer).await
        }
        None => next.run(request).await,
    })
}

/// The answer to a request that is not let through, which counts all the same.
async fn refused(guard: &Guard, request: Request, answer: Response) -> Response {
    match RateSubject::of(&request) {
        Some(asker) => asker.refused(guard.gateway.limits(), answer).await,
        None => answer,
    }
}

fn wrong_method(parts: &axum::http::request::Parts, allow: HeaderValue) -> Response {
    let problem = Problem::wrong_method(&parts.method, &parts.uri);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
