//! [`Principal`]: the user or token behind a request, and the one check of what it may do. The
//! module [`authenticate`](super::authenticate) makes it.

use std::net::IpAddr;

use uuid::Uuid;

use crate::Scope;
use crate::credential::AuthSource;
use crate::error::AccessError;
use crate::grant::{self, Grant, Labels, Scopes};
use crate::metrics::Metrics;
use runcast_store::audit::Actor;
use runcast_store::run_tokens::Parent;
use runcast_store::sessions::Owner;
use runcast_store::visibility::Visible;

/// What the rights of a token of a run rest on, beside the token itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ParentIds {
    /// The parent, if that is a token.
    pub(super) token: Option<Uuid>,
    /// The parent, if that is a user; else the user of the parent.
    pub(super) user: Option<Uuid>,
}

/// The user or token behind a request.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The user, or the token.
    pub id: Uuid,
    /// The name of the user or token.
    pub name: String,
    /// The user who signed in, or who created the token; none for a token of a run.
    pub user: Option<Uuid>,
    /// The session, if the request presented one.
    pub session: Option<Uuid>,
    /// Whether a token was presented, now or at sign-in.
    pub by_token: bool,
    /// Whether that is a token of a run.
    pub(super) of_run: bool,
    pub(super) parent: ParentIds,
    /// Where the request came from, for the audit log; known only within a request.
    pub address: Option<IpAddr>,
    pub(super) grants: Vec<Grant>,
    pub(super) auth_source: AuthSource,
    /// The [revocation generation](crate::open_streams::OpenStreams::revocation_generation) before
    /// the credential was looked up.
    pub(super) revocation_generation: u64,
    pub(super) metrics: Metrics,
}

impl Principal {
    /// Whether it holds a scope, for any runs.
    pub fn holds(&self, scope: Scope) -> bool {
        self.grants.iter().any(|grant| grant.scopes.holds(scope))
    }

    /// The scopes that it holds for any runs.
    pub fn scopes(&self) -> Scopes {
        let scopes = self.grants.iter().map(|grant| grant.scopes);
        scopes.fold(Scopes::default(), Scopes::or)
    }

    /// Its scopes, and the runs they are for.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The credential that its rights rest on.
    pub const fn auth_source(&self) -> &AuthSource {
        &self.auth_source
    }

    /// The [revocation generation](crate::open_streams::OpenStreams::revocation_generation) before
    /// the credential was looked up.
    pub const fn revocation_generation(&self) -> u64 {
        self.revocation_generation
    }

    /// Its id, name and address for the audit log.
    pub fn actor(&self) -> Actor {
        Actor {
            id: Some(self.id),
            name: self.name.clone(),
            address: self.address,
        }
    }

    /// The owner of its sessions.
    pub fn owner(&self) -> Owner {
        match self.user {
            Some(user) if !self.by_token => Owner::User(user),
            _ => Owner::Token(self.id),
        }
    }

    /// Whether it is a token of a run, or a session that was opened with one.
    pub const fn is_of_run(&self) -> bool {
        self.of_run
    }

    /// The parent of the tokens of runs that it asks for.
    pub(super) fn run_token_parent(&self) -> Parent {
        match self.user {
            Some(user) if !self.by_token => Parent::User(user),
            _ => Parent::Token(self.id),
        }
    }

    /// The user or token for which its requests count: the tokens of a user count for the user, and
    /// the tokens of runs for their parent.
    pub fn quota_owner(&self) -> Uuid {
        let ParentIds { token, user } = self.parent;
        self.user.or(user).or(token).unwrap_or(self.id)
    }

    /// The users, tokens and sessions that its rights rest on.
    pub(super) fn rests_on(&self) -> impl Iterator<Item = Uuid> {
        let ParentIds { token, user } = self.parent;
        let ids = [Some(self.id), self.user, self.session, token, user];
        ids.into_iter().flatten()
    }

    /// Checks that it may act on `run`, whatever the labels of the run are; without a `run`, on all
    /// runs and the installation.
    pub fn may(&self, scope: Scope, run: Option<Uuid>) -> Result<(), AccessError> {
        let general = |grant: &Grant| match run {
            None => grant.is_unbounded(),
            Some(_) => grant.covers(run, &Labels::new()),
        };
        self.check(scope, general)
    }

    /// Checks that it may act on a run with these labels.
    pub fn may_with(&self, scope: Scope, run: Uuid, labels: &Labels) -> Result<(), AccessError> {
        self.check(scope, |grant| grant.covers(Some(run), labels))
    }

    /// Checks that it may create a run with these labels.
    pub fn may_create(&self, labels: &Labels) -> Result<(), AccessError> {
        self.check(Scope::Publish, |grant| grant.covers(None, labels))
    }

    /// Whether the labels of this run decide if it may act on it.
    pub fn needs_labels(&self, scope: Scope, run: Uuid) -> bool {
        let mut held = self.grants.iter().filter(|grant| grant.scopes.holds(scope));
        let is_sure = |grant: &Grant| grant.covers(Some(run), &Labels::new());
        !self
            .grants
            .iter()
            .any(|grant| grant.scopes.holds(scope) && is_sure(grant))
            && held.any(|grant| grant.labels.is_some())
    }

    /// The runs that it holds a scope for; an error if there are none.
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
        self.metrics.denied("bounds");
        let bound = match self.grants.as_slice() {
            [Grant { run: Some(run), .. }] => format!("the credential is bound to run {run}"),
            _ => format!("the scope {scope} is bound to other runs, by their ids or labels"),
        };
        Err(AccessError::Forbidden(bound.into()))
    }

    /// Checks that it holds a scope, for any runs.
    pub fn must_hold(&self, scope: Scope) -> Result<(), AccessError> {
        match self.holds(scope) {
            true => Ok(()),
            false => Err(self.lacks(scope)),
        }
    }

    fn lacks(&self, scope: Scope) -> AccessError {
        self.metrics.denied("scope");
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
            of_run: false,
            parent: ParentIds::default(),
            address: None,
            grants,
            auth_source: Credential::User(Uuid::nil()).into(),
            revocation_generation: 0,
            metrics: Metrics::default(),
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
    fn requests_count_for_the_user_or_else_the_parent() {
        let [own, token, user] = [1, 2, 3].map(Uuid::from_u128);
        let mut one = principal(Vec::new());
        one.id = own;
        assert_eq!(one.quota_owner(), own);
        one.parent.token = Some(token);
        assert_eq!(one.quota_owner(), token);
        one.parent.user = Some(user);
        assert_eq!(one.quota_owner(), user);
        assert_eq!(one.rests_on().collect::<Vec<_>>(), [own, token, user]);
    }

    #[test]
    fn scope_and_run_of_a_grant_bound_what_it_allows() {
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
        assert!(!bound.needs_labels(Scope::Publish, other));
        assert!(
            principal(vec![grant(Scope::Admin)])
                .may(Scope::Control, Some(other))
                .is_ok()
        );
    }

    #[test]
    fn a_ticket_allows_only_reading_within_its_bounds() {
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
        assert_ne!(ticket.auth_source(), admin.auth_source());
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
    fn labels_are_checked_only_if_no_other_grant_allows_the_run() {
        let run = Uuid::from_u128(1);
        let search = Grant {
            labels: Some(labels("team", "search")),
            ..grant(Scope::Control)
        };
        let both = principal(vec![grant(Scope::Read), search]);
        assert!(both.may(Scope::Read, None).is_ok());
        assert!(!both.needs_labels(Scope::Read, run));
        assert!(both.needs_labels(Scope::Control, run));
        assert!(both.may(Scope::Control, None).is_err());
        let (search, ads) = (labels("team", "search"), labels("team", "ads"));
        assert!(both.may_with(Scope::Control, run, &search).is_ok());
        assert!(both.may_with(Scope::Control, run, &ads).is_err());
        let visible = both.visible(Scope::Control).expect("some");
        assert!(visible.admits(run, &search) && !visible.admits(run, &ads));
        assert!(both.visible(Scope::Publish).is_err());
    }
}
