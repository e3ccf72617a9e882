//! Who is behind a request, and the one check of what they may do. [`authenticate`](super::authenticate) finds them out.

use uuid::Uuid;

use super::grant::{self, Grant, Labels, Scopes};
use super::metrics::Metrics;
use crate::Scope;
use crate::credential::AuthSource;
use crate::error::AccessError;
use runcast_store::audit::Actor;
use runcast_store::sessions::Owner;
use runcast_store::visibility::Visible;

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
    pub(super) grants: Vec<Grant>,
    pub(super) basis: AuthSource,
    /// How often a change was heard of before it was looked up.
    pub(super) heard: u64,
    pub(super) meter: Metrics,
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

    /// What its rights rest on.
    #[must_use]
    pub const fn basis(&self) -> &AuthSource {
        &self.basis
    }

    /// How often a change was [heard](super::open_streams::OpenStreams::heard) of before it was looked up.
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
    pub fn may(&self, scope: Scope, run: Option<Uuid>) -> Result<(), AccessError> {
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
    pub fn may_with(&self, scope: Scope, run: Uuid, labels: &Labels) -> Result<(), AccessError> {
        self.check(scope, |grant| grant.covers(Some(run), labels))
    }

    /// Checks that it may create a run with these labels.
    ///
    /// # Errors
    /// 403 if it may not publish, or not to such runs.
    pub fn may_create(&self, labels: &Labels) -> Result<(), AccessError> {
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
    pub fn visible(&self, scope: Scope) -> Result<Visible, AccessError> {
        self.must_hold(scope)?;
        Ok(grant::visible(&self.grants, scope))
    }

    fn check(&self, scope: Scope, within: impl Fn(&Grant) -> bool) -> Result<(), AccessError> {
        self.must_hold(scope)?;
        let mut held = self.grants.iter().filter(|grant| grant.scopes.holds(scope));
        if held.any(within) {
            return Ok(());
        }
        self.meter.denied("bounds");
        let bound = match self.grants.as_slice() {
            [Grant { run: Some(run), .. }] => format!("the credential is bound to run {run}"),
            _ => format!("the scope {scope} is bound to other runs, by their ids or labels"),
        };
        Err(AccessError::Forbidden(bound.into()))
    }

    /// Checks that it holds a scope at all, for whichever runs.
    ///
    /// # Errors
    /// 403.
    pub fn must_hold(&self, scope: Scope) -> Result<(), AccessError> {
        match self.holds(scope) {
            true => Ok(()),
            false => Err(self.lacks(scope)),
        }
    }

    fn lacks(&self, scope: Scope) -> AccessError {
        self.meter.denied("scope");
        AccessError::MissingScope(scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{Bounds, Credential};

    fn principal(grants: Vec<Grant>) -> Principal {
        Principal {
            id: Uuid::nil(),
            name: "test".into(),
            user: None,
            session: None,
            by_token: true,
            grants,
            basis: Credential::User(Uuid::nil()).into(),
            heard: 0,
            meter: Metrics::default(),
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
    fn by_a_ticket_one_reads_what_one_may_and_does_nothing_else() {
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let bounds = Bounds::of([mine, other]);
        let admin = principal(vec![grant(Scope::Admin)]);
        let ticket = admin.clone().by_ticket(Some(&Bounds::default()));
        assert!(ticket.may(Scope::Read, None).is_ok());
        for scope in [Scope::Publish, Scope::Control, Scope::Admin] {
            assert!(ticket.must_hold(scope).is_err(), "{scope}");
        }
        let ticket = admin.clone().by_ticket(Some(&bounds));
        assert!(ticket.may(Scope::Read, Some(mine)).is_ok());
        assert!(ticket.may(Scope::Read, Some(Uuid::from_u128(3))).is_err());
        assert!(ticket.may(Scope::Read, None).is_err());
        assert_ne!(ticket.basis(), admin.basis());
        let bound = principal(vec![Grant {
            run: Some(mine),
            ..grant(Scope::Read)
        }]);
        let ticket = bound.by_ticket(Some(&bounds));
        assert!(ticket.may(Scope::Read, Some(mine)).is_ok());
        assert!(ticket.may(Scope::Read, Some(other)).is_err());
        let publisher = principal(vec![grant(Scope::Publish)]).by_ticket(Some(&bounds));
        assert_eq!(publisher.grants(), []);
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
}
