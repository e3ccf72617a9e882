//! Who is behind a request, and the one check of what they may do.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use tracing::error;
use uuid::Uuid;

use super::Scope;
use super::secret::Secret;
use super::session;
use crate::http::Gateway;
use crate::http::problem::Problem;
use crate::store::tokens::TokenRow;

/// Who is behind a request.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The token that it stands for.
    pub token: Uuid,
    /// Whom that was made for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The only run that it may touch.
    pub run: Option<Uuid>,
}

impl Principal {
    /// What a stored token stands for. A scope that this version does not know gives no right.
    #[must_use]
    pub fn of(row: TokenRow) -> Self {
        Self {
            token: row.id,
            name: row.name,
            scopes: row
                .scopes
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            run: row.run_id,
        }
    }

    /// True if it holds a scope at all, for whichever runs.
    #[must_use]
    pub fn holds(&self, scope: Scope) -> bool {
        self.scopes
            .iter()
            .any(|held| *held == scope || *held == Scope::Admin)
    }

    /// Checks that it may act on `run`, or on runs in general.
    ///
    /// # Errors
    /// 403 if the scope is missing or the token is bound to another run.
    pub fn may(&self, scope: Scope, run: Option<Uuid>) -> Result<(), Problem> {
        if !self.holds(scope) {
            return Err(Problem::missing_scope(scope));
        }
        match (self.run, run) {
            (None, _) => Ok(()),
            (Some(bound), Some(run)) if bound == run => Ok(()),
            (Some(bound), _) => Err(Problem::forbidden(format!(
                "this token is bound to run {bound}"
            ))),
        }
    }
}

/// Whom [the guard](super::guard) has let through.
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| {
            error!(
                path = parts.uri.path(),
                "a route that is open to all asks who is there"
            );
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "this needs to know who asks, and nobody was asked to say",
            )
        })
    }
}

impl Principal {
    /// Finds out who sent a request: by its token, else by its session.
    ///
    /// # Errors
    /// 401 without a valid credential, 403 for a write with a cookie that another site made a browser send.
    pub async fn authenticate(parts: &Parts, gateway: &Gateway) -> Result<Self, Problem> {
        if let Some(header) = parts.headers.get(header::AUTHORIZATION) {
            let token = header
                .to_str()
                .ok()
                .and_then(|text| text.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| Secret::claimed(token.trim()))
                .ok_or_else(|| Problem::unauthorized("expected Authorization: Bearer <token>"))?;
            let row = gateway.store().token(token.hash()).await?;
            return row
                .map(Self::of)
                .ok_or_else(|| Problem::unauthorized("the token is unknown, expired or revoked"));
        }
        let Some(session) = session::from_headers(&parts.headers) else {
            return Err(Problem::unauthorized(
                "sign in, or send Authorization: Bearer <token>",
            ));
        };
        if !parts.method.is_safe() {
            same_origin(&parts.method, &parts.headers)?;
        }
        let row = gateway.store().session(session.hash()).await?;
        row.map(Self::of)
            .ok_or_else(|| Problem::unauthorized("the session has ended: sign in again"))
    }
}

/// A browser sends the cookie with every request, also with one that another site made it send; such
/// a request says so in `Sec-Fetch-Site`, or, in older browsers, by its `Origin`.
///
/// # Errors
/// 403 for a request from elsewhere.
pub fn same_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let same = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == text("host")
        }
        // No browser leaves both out; a program that sends the cookie by hand is not tricked.
        (None, None) => true,
    };
    if same {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "{method} with a session cookie must come from the page itself"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(scopes: &[Scope], run: Option<Uuid>) -> Principal {
        Principal {
            token: Uuid::nil(),
            name: "test".into(),
            scopes: scopes.to_vec(),
            run,
        }
    }

    #[test]
    fn scopes_and_runs_bound_what_one_may_do() {
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let bound = principal(&[Scope::Publish], Some(mine));
        assert!(bound.may(Scope::Publish, Some(mine)).is_ok());
        assert!(bound.may(Scope::Publish, Some(other)).is_err());
        assert!(bound.may(Scope::Publish, None).is_err());
        assert!(bound.may(Scope::Read, Some(mine)).is_err());
        assert!(
            principal(&[Scope::Admin], None)
                .may(Scope::Control, Some(other))
                .is_ok()
        );
    }

    #[test]
    fn writes_from_elsewhere_are_refused() {
        let check = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().expect("a value"));
            }
            same_origin(&Method::POST, &map).is_ok()
        };
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(!check(&[("sec-fetch-site", "cross-site")]));
        assert!(!check(&[("sec-fetch-site", "same-site")]));
        assert!(check(&[("origin", "http://a:1"), ("host", "a:1")]));
        assert!(!check(&[("origin", "http://b:1"), ("host", "a:1")]));
        assert!(!check(&[("origin", "null"), ("host", "a:1")]));
        assert!(check(&[]));
    }
}
