//! The guard: every request that has found a route passes here first, and none reaches a handler by another way.
//!
//! It applies the [rule](super::rules) of the route, before a byte of the body is read: it answers 405 where the path takes
//! other methods, 401 to whom it does not know, 403 without the scope. Whom it lets through is left as a [`Principal`]
//! in the request's extensions, for what comes behind it. What depends on the run that a request is about is checked by
//! its handler, with [`Principal::may`].
//!
//! [Limits](super::limit::layer) count requests behind the guard, and those that it answers by 403 or 405 as well; what
//! is answered by 401 has a limit of its own.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::error;

use super::Scope;
use super::limit::layer::Asker;
use super::principal::Principal;
use super::rules::{Finding, Rule, Rules};
use crate::http::Gateway;
use crate::http::problem::Problem;

/// What the guard knows. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Guard {
    gateway: Gateway,
    rules: Arc<Rules>,
}

impl Guard {
    /// A guard of this gateway by these rules.
    #[must_use]
    pub fn new(gateway: Gateway, rules: Rules) -> Self {
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
        Finding::Route(rule) => rule,
        Finding::OtherMethods(allow) => {
            let answer = wrong_method(&parts, allow);
            return Ok(refused(&guard, Request::from_parts(parts, body), answer).await);
        }
        Finding::Undocumented => Rule::Missing,
    };
    let scope = match rule {
        Rule::Public => return Ok(next.run(Request::from_parts(parts, body)).await),
        Rule::SignedIn => None,
        Rule::Holds(scope) => Some(scope),
        Rule::Stream => Some(Scope::Read),
        Rule::Missing => {
            error!(path, method = %parts.method, "a route has no rule: nobody may use it");
            return Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "nobody has said who may do this, so nobody may",
            ));
        }
    };
    let takes_ticket = rule == Rule::Stream;
    let principal = Principal::authenticate(&parts, &guard.gateway, takes_ticket).await?;
    let missing = match scope {
        // Administration is not about one run: whoever is bound to one has no part in it.
        Some(Scope::Admin) => principal.may(Scope::Admin, None).err(),
        Some(scope) => principal.must_hold(scope).err(),
        None => None,
    };
    parts.extensions.insert(principal);
    let request = Request::from_parts(parts, body);
    Ok(match missing {
        Some(problem) => refused(&guard, request, problem.into_response()).await,
        None => next.run(request).await,
    })
}

/// The answer to a request that is not let through, which counts all the same.
async fn refused(guard: &Guard, request: Request, answer: Response) -> Response {
    match Asker::of(&request) {
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
