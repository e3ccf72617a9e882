//! [`Grant`]: scopes for runs. The rights of a principal are a set of grants.
//!
//! A grant without bounds is for all runs and for the installation. A grant that is bounded to a
//! run or to labels is only for the runs within its bounds. A token of a user has the
//! intersections of its own grant with each grant of the user's roles: the scopes of both, within
//! the bounds of both. Within bounds, the scope `admin` means all other scopes: it manages the
//! installation, which has no bounds.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::Scope;
use runcast_store::roles::Permissions;
use runcast_store::tokens::TokenRow;
use runcast_store::visibility::Visible;

/// Labels, by name.
pub type Labels = Map<String, Value>;

/// A set of scopes. The scope `admin` holds all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// The scopes with these names. A name that this version does not know gives no right.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let known = names.into_iter().filter_map(|name| name.parse().ok());
        known.fold(Self::default(), Self::with)
    }

    /// Adds a scope.
    pub fn with(self, scope: Scope) -> Self {
        match scope {
            Scope::Admin => Self(
                Scope::ALL
                    .into_iter()
                    .map(bit)
                    .fold(0, |all, one| all | one),
            ),
            scope => Self(self.0 | bit(scope)),
        }
    }

    /// The intersection.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The union.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without_admin(self) -> Self {
        Self(self.0 & !bit(Scope::Admin))
    }

    /// Whether it contains a scope.
    pub fn holds(self, scope: Scope) -> bool {
        self.0 & bit(scope) != 0
    }

    /// Their names; only `admin` if it is among them, as it implies the others.
    pub fn names(self) -> Vec<&'static str> {
        if self.holds(Scope::Admin) {
            return vec![Scope::Admin.name()];
        }
        let held = Scope::ALL.into_iter().filter(|scope| self.holds(*scope));
        held.map(Scope::name).collect()
    }
}

const fn bit(scope: Scope) -> u8 {
    match scope {
        Scope::Read => 1,
        Scope::Publish => 2,
        Scope::Control => 4,
        Scope::Admin => 8,
        Scope::Delete => 16,
        Scope::Redact => 32,
    }
}

/// Scopes for runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// The scopes.
    pub scopes: Scopes,
    /// Only for this run, if set.
    pub run: Option<Uuid>,
    /// Only for runs with all of these labels, if set.
    pub labels: Option<Labels>,
}

impl Grant {
    fn new(scopes: Scopes, run: Option<Uuid>, labels: Option<Labels>) -> Self {
        let grant = Self {
            scopes,
            run,
            labels,
        };
        let scopes = match grant.is_unbounded() {
            true => scopes,
            false => scopes.without_admin(),
        };
        Self { scopes, ..grant }
    }

    /// The grant of a token, before it is bounded by the rights of its user.
    pub fn of_token(token: &TokenRow) -> Self {
        let scopes = Scopes::named(&token.scopes);
        Self::new(scopes, token.run_id, token.labels.clone())
    }

    /// The grants of a user, one for each role.
    pub fn of_user(permissions: &Permissions) -> Vec<Self> {
        let grants = permissions.grants.iter();
        grants
            .map(|grant| Self::new(Scopes::named(&grant.scopes), None, grant.labels.clone()))
            .collect()
    }

    /// The intersection; none if it is empty.
    pub fn and(&self, other: &Self) -> Option<Self> {
        let scopes = self.scopes.and(other.scopes);
        if scopes == Scopes::default() {
            return None;
        }
        let run = match (self.run, other.run) {
            (Some(one), Some(two)) if one != two => return None,
            (one, two) => one.or(two),
        };
        let labels = match (&self.labels, &other.labels) {
            (Some(one), Some(two)) => {
                let mut both = one.clone();
                for (name, value) in two {
                    match both.get(name) {
                        Some(other) if other != value => return None,
                        _ => both.insert(name.clone(), value.clone()),
                    };
                }
                Some(both)
            }
            (one, two) => one.clone().or_else(|| two.clone()),
        };
        Some(Self::new(scopes, run, labels))
    }

    /// Whether it is for all runs and for the installation.
    pub const fn is_unbounded(&self) -> bool {
        self.run.is_none() && self.labels.is_none()
    }

    /// Whether a run is within its bounds. `run` is none for a run that is about to be created.
    pub fn covers(&self, run: Option<Uuid>, labels: &Labels) -> bool {
        let bound = self.run.is_none() || self.run == run;
        let required = self.labels.iter().flatten();
        bound
            && required
                .into_iter()
                .all(|(name, value)| labels.get(name) == Some(value))
    }
}

/// The runs for which these grants contain a scope.
pub fn visible(grants: &[Grant], scope: Scope) -> Visible {
    let held = grants.iter().filter(|grant| grant.scopes.holds(scope));
    let bounds = held.map(|grant| (grant.run, grant.labels.clone()));
    Visible::within(bounds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(value: Value) -> Option<Labels> {
        match value {
            Value::Object(labels) => Some(labels),
            _ => None,
        }
    }

    fn grant(scopes: &[Scope], bound: Value) -> Grant {
        Grant {
            scopes: scopes.iter().copied().fold(Scopes::default(), Scopes::with),
            run: None,
            labels: labels(bound),
        }
    }

    #[test]
    fn admin_implies_all_scopes_and_an_intersection_has_those_of_both() {
        let admin = grant(&[Scope::Admin], Value::Null);
        assert!(
            Scope::ALL
                .into_iter()
                .all(|scope| admin.scopes.holds(scope))
        );
        assert_eq!(admin.scopes.names(), ["admin"]);
        let reader = grant(&[Scope::Read], Value::Null);
        let both = admin.and(&reader).expect("something");
        assert_eq!(both.scopes.names(), ["runs:read"]);
        assert_eq!(reader.and(&grant(&[Scope::Publish], Value::Null)), None);
    }

    #[test]
    fn an_intersection_has_the_bounds_of_both() {
        let search = grant(&[Scope::Read], json!({"team": "search"}));
        let live = grant(&[Scope::Read], json!({"stage": "live"}));
        let other = grant(&[Scope::Read], json!({"team": "ads"}));
        let both = search.and(&live).expect("something");
        let run = |value: Value| labels(value).expect("labels");
        assert!(both.covers(None, &run(json!({"team": "search", "stage": "live"}))));
        assert!(!both.covers(None, &run(json!({"team": "search"}))));
        assert_eq!(search.and(&other), None);
        assert!(!search.is_unbounded());
        let one = Grant {
            run: Some(Uuid::from_u128(1)),
            ..search
        };
        assert!(one.covers(
            Some(Uuid::from_u128(1)),
            &run(json!({"team": "search", "a": "b"}))
        ));
        assert!(!one.covers(Some(Uuid::from_u128(2)), &run(json!({"team": "search"}))));
        assert!(!one.covers(None, &run(json!({"team": "search"}))));
    }
}
