//! Who is behind a request, and the one check of what they may do.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use tracing::error;
use uuid::Uuid;

use super::grant::{self, Grant, Labels, Scopes};
use super::meter::Meter;
use super::opened::Credential;
use super::secret::Secret;
use super::session::cookie;
use super::{Access, Scope};
use crate::http::Gateway;
use crate::http::problem::Problem;
use crate::store::audit::Actor;
use crate::store::sessions::{Owner, SessionRow};
use crate::store::tokens::TokenRow;
use crate::store::visible::Visible;

/// Who is behind a request.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The user, or the token.
    pub id: Uuid,
    /// The user's name, or that of whom the token was made for.
    pub name: String,
    /// The user: who has signed in, or has made the token.
    pub user: Option<Uuid>,
    /// The session, if it is one.
    pub session: Option<Uuid>,
    /// True if it has signed in, or sends, a token.
    pub by_token: bool,
    grants: Vec<Grant>,
    credential: Credential,
    /// How often a change was heard of before it was looked up.
    heard: u64,
    meter: Meter,
}

impl Principal {
    /// True if it holds a scope at all, for whichever runs.
    #[must_use]
    pub fn holds(&self, scope: Scope) -> bool {
        self.grants.iter().any(|grant| grant.scopes.holds(scope))
    }

    /// What it may do at all, for whichever runs.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        let scopes = self.grants.iter().map(|grant| grant.scopes);
        scopes.fold(Scopes::default(), Scopes::or)
    }

    /// What it may do, and for which runs.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// What it was let in by.
    #[must_use]
    pub const fn credential(&self) -> Credential {
        self.credential
    }

    /// How often a change was [heard](super::opened::Openings::heard) of before it was looked up.
    #[must_use]
    pub const fn heard(&self) -> u64 {
        self.heard
    }

    /// Its name for what is written down.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor {
            id: Some(self.id),
            name: self.name.clone(),
        }
    }

    /// Whose its sessions are.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match self.user {
            Some(user) if !self.by_token => Owner::User(user),
            _ => Owner::Token(self.id),
        }
    }

    /// Checks that it may act on `run`, whatever its labels are, or on runs in general.
    ///
    /// # Errors
    /// 403 if the scope is missing, or bounded to other runs.
    pub fn may(&self, scope: Scope, run: Option<Uuid>) -> Result<(), Problem> {
        let general = |grant: &Grant| match run {
            None => grant.is_unbounded(),
            Some(_) => grant.covers(run, &Labels::new()),
        };
        self.check(scope, general)
    }

    /// Checks that it may act on a run with these labels.
    ///
    /// # Errors
    /// 403 if the scope is missing, or bounded to other runs.
    pub fn may_with(&self, scope: Scope, run: Uuid, labels: &Labels) -> Result<(), Problem> {
        self.check(scope, |grant| grant.covers(Some(run), labels))
    }

    /// Checks that it may create a run with these labels.
    ///
    /// # Errors
    /// 403 if it may not publish, or not to such runs.
    pub fn may_create(&self, labels: &Labels) -> Result<(), Problem> {
        self.check(Scope::Publish, |grant| grant.covers(None, labels))
    }

    /// True if the labels of this run decide whether it may act on it.
    #[must_use]
    pub fn asks_labels(&self, scope: Scope, run: Uuid) -> bool {
        let mut held = self.grants.iter().filter(|grant| grant.scopes.holds(scope));
        let is_sure = |grant: &Grant| grant.covers(Some(run), &Labels::new());
        !self
            .grants
            .iter()
            .any(|grant| grant.scopes.holds(scope) && is_sure(grant))
            && held.any(|grant| grant.labels.is_some())
    }

    /// The runs that it may do this with.
    ///
    /// # Errors
    /// 403 if it may do it with none.
    pub fn visible(&self, scope: Scope) -> Result<Visible, Problem> {
        self.must_hold(scope)?;
        Ok(grant::visible(&self.grants, scope))
    }

    fn check(&self, scope: Scope, within: impl Fn(&Grant) -> bool) -> Result<(), Problem> {
        self.must_hold(scope)?;
        let mut held = self.grants.iter().filter(|grant| grant.scopes.holds(scope));
        if held.any(within) {
            return Ok(());
        }
        self.meter.denied("bounds");
        let bound = match self.grants.as_slice() {
            [Grant { run: Some(run), .. }] => format!("this token is bound to run {run}"),
            _ => format!("the scope {scope} is bound to other runs, by their labels"),
        };
        Err(Problem::forbidden(bound))
    }

    /// Checks that it holds a scope at all, for whichever runs.
    ///
    /// # Errors
    /// 403.
    pub fn must_hold(&self, scope: Scope) -> Result<(), Problem> {
        match self.holds(scope) {
            true => Ok(()),
            false => Err(self.lacks(scope)),
        }
    }

    fn lacks(&self, scope: Scope) -> Problem {
        self.meter.denied("scope");
        Problem::missing_scope(scope)
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
        let heard = gateway.access().openings().heard();
        let principal = Self::who(parts, gateway).await?;
        Ok(Self { heard, ..principal })
    }

    async fn who(parts: &Parts, gateway: &Gateway) -> Result<Self, Problem> {
        let access = gateway.access();
        if let Some(header) = parts.headers.get(header::AUTHORIZATION) {
            let token = header
                .to_str()
                .ok()
                .and_then(|text| text.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| Secret::claimed(token.trim()));
            let Some(token) = token else {
                let expected = "expected Authorization: Bearer <token>";
                return Err(denied(access, "malformed", expected));
            };
            let principal = Self::of_secret(access, &token).await?;
            access.note_use(principal.id);
            return Ok(principal);
        }
        let Some(session) = cookie::from_headers(&parts.headers, gateway.is_secure()) else {
            let expected = "sign in, or send Authorization: Bearer <token>";
            return Err(denied(access, "none", expected));
        };
        if !parts.method.is_safe() {
            same_origin(&parts.method, &parts.headers)
                .inspect_err(|_problem| access.meter().denied("cross_site"))?;
        }
        Self::of_session(access, &session).await
    }

    /// Who a token stands for.
    ///
    /// # Errors
    /// 401 if it is not valid.
    pub async fn of_secret(access: &Access, token: &Secret) -> Result<Self, Problem> {
        match token.is_token() {
            true => Self::of(access, Credential::Token(token.hash())).await,
            false => Err(unknown(access)),
        }
    }

    /// Who a credential stands for now. It does not count as a use of it: the end of a session stays where it is.
    ///
    /// # Errors
    /// 401 if it is not valid any more, 503 if nobody can say.
    pub async fn of(access: &Access, credential: Credential) -> Result<Self, Problem> {
        match credential {
            Credential::Token(hash) => match access.token(hash).await? {
                Some(row) => Self::of_token(access, row, hash).await,
                None => Err(unknown(access)),
            },
            Credential::Session(hash) => {
                let row = access.session_as_it_is(hash).await?;
                Self::of_row(access, row, hash).await
            }
            Credential::User(user) => Self::of_user(access, user).await,
        }
    }

    async fn of_session(access: &Access, session: &Secret) -> Result<Self, Problem> {
        let hash = session.hash();
        let row = access.session(hash).await?;
        Self::of_row(access, row, hash).await
    }

    async fn of_row(
        access: &Access,
        row: Option<SessionRow>,
        hash: [u8; 32],
    ) -> Result<Self, Problem> {
        let ended = || denied(access, "session", "the session has ended: sign in again");
        let row = row.ok_or_else(ended)?;
        let principal = match (row.user_id, row.token.as_deref().and_then(unhex)) {
            (Some(user), _) => Self::of_user(access, user).await?,
            (None, Some(hash)) => {
                let token = access.token(hash).await?.ok_or_else(ended)?;
                Self::of_token(access, token, hash).await?
            }
            (None, None) => return Err(ended()),
        };
        Ok(Self {
            session: Some(row.id),
            credential: Credential::Session(hash),
            ..principal
        })
    }

    /// What a user may do now.
    ///
    /// # Errors
    /// 401 if there is no such user any more, or they are disabled.
    pub async fn of_user(access: &Access, user: Uuid) -> Result<Self, Problem> {
        let permissions = access.permissions(user).await?;
        let Some(permissions) = permissions.filter(|permissions| !permissions.disabled) else {
            let disabled = "the user is disabled, or does not exist any more";
            return Err(denied(access, "disabled", disabled));
        };
        Ok(Self {
            id: user,
            grants: Grant::of_user(&permissions),
            name: permissions.name,
            user: Some(user),
            session: None,
            by_token: false,
            credential: Credential::User(user),
            heard: 0,
            meter: access.meter().clone(),
        })
    }

    async fn of_token(access: &Access, row: TokenRow, hash: [u8; 32]) -> Result<Self, Problem> {
        let own = Grant::of_token(&row);
        let grants = match row.user_id {
            None => vec![own],
            Some(user) => {
                let owner = Self::of_user(access, user).await?;
                let both = owner.grants.iter().filter_map(|grant| grant.and(&own));
                both.collect()
            }
        };
        Ok(Self {
            id: row.id,
            name: row.name,
            user: row.user_id,
            session: None,
            by_token: true,
            grants,
            credential: Credential::Token(hash),
            heard: 0,
            meter: access.meter().clone(),
        })
    }
}

fn unknown(access: &Access) -> Problem {
    denied(access, "token", "the token is unknown, expired or revoked")
}

fn denied(access: &Access, reason: &'static str, words: &str) -> Problem {
    access.meter().denied(reason);
    Problem::unauthorized(words)
}

/// The bytes behind hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
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

    fn principal(grants: Vec<Grant>) -> Principal {
        Principal {
            id: Uuid::nil(),
            name: "test".into(),
            user: None,
            session: None,
            by_token: true,
            grants,
            credential: Credential::User(Uuid::nil()),
            heard: 0,
            meter: Meter::default(),
        }
    }

    fn grant(scope: Scope) -> Grant {
        Grant {
            scopes: Scopes::default().with(scope),
            ..Grant::default()
        }
    }

    fn labels(name: &str, value: &str) -> Labels {
        std::iter::once((name.to_owned(), value.into())).collect()
    }

    #[test]
    fn scopes_and_runs_bound_what_one_may_do() {
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let bound = principal(vec![Grant {
            run: Some(mine),
            ..grant(Scope::Publish)
        }]);
        assert!(bound.may(Scope::Publish, Some(mine)).is_ok());
        assert!(bound.may(Scope::Publish, Some(other)).is_err());
        assert!(bound.may(Scope::Publish, None).is_err());
        assert!(bound.may(Scope::Read, Some(mine)).is_err());
        assert!(bound.may_create(&Labels::new()).is_err());
        assert!(!bound.asks_labels(Scope::Publish, other));
        assert!(
            principal(vec![grant(Scope::Admin)])
                .may(Scope::Control, Some(other))
                .is_ok()
        );
    }

    #[test]
    fn labels_decide_only_where_nothing_else_does() {
        let run = Uuid::from_u128(1);
        let search = Grant {
            labels: Some(labels("team", "search")),
            ..grant(Scope::Control)
        };
        let both = principal(vec![grant(Scope::Read), search]);
        assert!(both.may(Scope::Read, None).is_ok());
        assert!(!both.asks_labels(Scope::Read, run));
        assert!(both.asks_labels(Scope::Control, run));
        assert!(both.may(Scope::Control, None).is_err());
        let (search, ads) = (labels("team", "search"), labels("team", "ads"));
        assert!(both.may_with(Scope::Control, run, &search).is_ok());
        assert!(both.may_with(Scope::Control, run, &ads).is_err());
        let visible = both.visible(Scope::Control).expect("some");
        assert!(visible.admits(run, &search) && !visible.admits(run, &ads));
        assert!(both.visible(Scope::Publish).is_err());
    }

    #[test]
    fn hexadecimal_digits_are_read() {
        let digits = "0f".repeat(32);
        assert_eq!(unhex(&digits), Some([15; 32]));
        for wrong in [&digits[..62], &"xy".repeat(32), &"é".repeat(32)] {
            assert_eq!(unhex(wrong), None);
        }
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
