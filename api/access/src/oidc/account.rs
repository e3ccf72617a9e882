//! [`Accounts`]: finds, links or creates the user of an [`Account`] at an issuer.
//!
//! Once an account is linked to a user, its subject identifies it, even if its email address
//! changes, here or at the issuer. An account that is not linked yet is linked to the user with its
//! address, if the issuer has verified the address and has no other account linked to that user:
//! addresses are handed on, so they count only the first time, and for one account of an issuer.
//! Otherwise it gets a new user, if the operator allows that. Of two concurrent sign-ins, unique
//! indexes let one succeed, and the other looks again.

use rand::RngExt as _;
use serde_json::json;
use tracing::error;
use uuid::Uuid;

use super::flow::SignInRefused;
use runcast_store::Store;
use runcast_store::audit::Actor;
use runcast_store::identities::{Identified, Identity};
use runcast_store::users::{NewUser, UserError};

/// Longest subject, by the specification.
const MAX_SUBJECT_BYTES: usize = 255;

/// Longest email address.
const MAX_EMAIL_BYTES: usize = 254;

/// Longest generated name, so that a suffix fits behind it.
const MAX_NAME_CHARS: usize = 48;

/// Attempts to find the user, each after a concurrent sign-in was faster.
const MAX_LOOKUP_ATTEMPTS: usize = 3;

/// Names to try for a new user.
const MAX_NAME_ATTEMPTS: usize = 5;

/// Names with a meaning in the audit log, which no new user gets.
const RESERVED_NAMES: [&str; 4] = ["admin", "root", "runcastd", "unknown"];

/// Whether a text can be a subject, the id of an account at its issuer.
pub fn is_subject(text: &str) -> bool {
    (1..=MAX_SUBJECT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// An account at an issuer, as the verified ID token describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    issuer: String,
    subject: String,
    /// An address that the issuer has verified.
    email: Option<String>,
    /// The preferred name.
    name: Option<String>,
}

impl Account {
    /// None if the subject is not a valid one.
    pub(super) fn new(issuer: &str, subject: &str) -> Option<Self> {
        is_subject(subject).then(|| Self {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            ..Self::default()
        })
    }

    /// Sets an address that the issuer has verified, if it can be one.
    pub(super) fn with_email(mut self, email: Option<&str>) -> Self {
        let fits =
            |email: &&str| email.len() <= MAX_EMAIL_BYTES && !email.chars().any(char::is_control);
        self.email = email.filter(fits).map(str::to_owned);
        self
    }

    /// Sets the preferred name.
    pub(super) fn with_name(mut self, name: Option<&str>) -> Self {
        self.name = name.map(str::to_owned);
        self
    }

    /// Names for a new user, best first.
    fn names(&self, email: &str) -> impl Iterator<Item = String> {
        let preferred = self.name.as_deref().unwrap_or(email);
        // Some issuers use the address as the name; the name of a user is never an address.
        let preferred = preferred.split('@').next().unwrap_or_default();
        let plain = |char: char| match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => char,
            _ => '-',
        };
        let name: String = preferred.chars().take(MAX_NAME_CHARS).map(plain).collect();
        let name = name.trim_matches(['.', '_', '-']).to_owned();
        let name = if name.is_empty() {
            "user".to_owned()
        } else {
            name
        };
        let is_free = !RESERVED_NAMES
            .iter()
            .any(|one| name.eq_ignore_ascii_case(one));
        let itself = is_free.then(|| name.clone());
        let numbered = (2..MAX_NAME_ATTEMPTS).map({
            let name = name.clone();
            move |number| format!("{name}-{number}")
        });
        let random = format!("{name}-{:06x}", rand::rng().random_range(0..1 << 24));
        itself.into_iter().chain(numbered).chain([random])
    }
}

/// The outcome of linking an account.
enum AccountMatch {
    User(Uuid),
    /// A concurrent sign-in was faster: look again.
    Conflict,
}

/// The users of accounts.
#[derive(Debug)]
pub(crate) struct Accounts {
    store: Store,
}

impl Accounts {
    pub(crate) const fn new(store: Store) -> Self {
        Self { store }
    }

    /// The user of an account. If there is none, a user with this role is created. A refusal is
    /// recorded in the audit log with its reason.
    pub(super) async fn user_of(
        &self,
        account: &Account,
        role: Option<&str>,
    ) -> Result<Uuid, SignInRefused> {
        for _ in 0..MAX_LOOKUP_ATTEMPTS {
            let known = self.store.identified(&account.issuer, &account.subject);
            if let Some(user) = known.await? {
                return match user.disabled {
                    true => Err(self.refuse(account, "disabled", Some(&user)).await),
                    false => Ok(user.id),
                };
            }
            if let AccountMatch::User(user) = self.link_or_create(account, role).await? {
                return Ok(user);
            }
        }
        Err(self.refuse(account, "contended", None).await)
    }

    async fn link_or_create(
        &self,
        account: &Account,
        role: Option<&str>,
    ) -> Result<AccountMatch, SignInRefused> {
        let Some(email) = account.email.as_deref() else {
            return Err(self.refuse(account, "unverified", None).await);
        };
        let identity = Identity {
            issuer: &account.issuer,
            subject: &account.subject,
            email,
        };
        if let Some(user) = self.store.addressed(email).await? {
            // Postgres compares lower case, where some other letters become ASCII ones: mail does
            // not treat such addresses as equal.
            if !user.email.eq_ignore_ascii_case(email) {
                return Err(self.refuse(account, "similar", Some(&user)).await);
            }
            if user.disabled {
                return Err(self.refuse(account, "disabled", Some(&user)).await);
            }
            let actor = Actor {
                id: Some(user.id),
                name: user.name.clone(),
                address: None,
            };
            if self.store.link_identity(&actor, &identity, user.id).await? {
                return Ok(AccountMatch::User(user.id));
            }
            let known = self.store.identified(&account.issuer, &account.subject);
            return match known.await? {
                Some(_) => Ok(AccountMatch::Conflict),
                None => Err(self.refuse(account, "linked", Some(&user)).await),
            };
        }
        match role {
            Some(role) => self.create_user(account, &identity, role).await,
            None => Err(self.refuse(account, "unknown", None).await),
        }
    }

    async fn create_user(
        &self,
        account: &Account,
        identity: &Identity<'_>,
        role: &str,
    ) -> Result<AccountMatch, SignInRefused> {
        let roles = [role.to_owned()];
        for name in account.names(identity.email) {
            let new = NewUser {
                name: &name,
                email: identity.email,
                password: None,
                roles: &roles,
            };
            match self.store.create_identified(identity, &new).await {
                Ok(Some(user)) => return Ok(AccountMatch::User(user)),
                Ok(None) | Err(UserError::EmailTaken(_)) => return Ok(AccountMatch::Conflict),
                Err(UserError::NameTaken(_)) => {}
                Err(UserError::Store(failure)) => return Err(failure.into()),
                Err(failure) => {
                    error!(error = %failure, "cannot create a user for an account of the issuer");
                    return Err(self.refuse(account, "unfit", None).await);
                }
            }
        }
        Err(self.refuse(account, "names", None).await)
    }

    /// Records a refused account and the reason in the audit log. The browser gets less detail.
    async fn refuse(
        &self,
        account: &Account,
        reason: &'static str,
        user: Option<&Identified>,
    ) -> SignInRefused {
        let unknown = Actor {
            id: None,
            name: "unknown".to_owned(),
            address: None,
        };
        let target = user.map_or_else(|| account.subject.clone(), |user| user.id.to_string());
        let details = json!({
            "by": "oidc",
            "reason": reason,
            "issuer": account.issuer,
            "subject": account.subject,
            "email": account.email,
        });
        let written = self
            .store
            .audit(&unknown, "session.refused", &target, details);
        if let Err(failure) = written.await {
            return failure.into();
        }
        match reason {
            "unverified" => SignInRefused::Unverified,
            _ => SignInRefused::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: Option<&str>, email: &str) -> Vec<String> {
        let account = Account::new("https://issuer", "1").expect("an account");
        account.with_name(name).names(email).collect()
    }

    #[test]
    fn a_new_user_gets_a_valid_name() {
        let first = |name, email| names(name, email)[0].clone();
        assert_eq!(first(Some("ada"), "x@example.com"), "ada");
        assert_eq!(first(None, "ada.l@example.com"), "ada.l");
        assert_eq!(first(Some("ada@example.com"), "x@example.com"), "ada");
        assert_eq!(first(Some("Ada Lovelace"), "x@example.com"), "Ada-Lovelace");
        assert_eq!(first(Some("@"), "x@example.com"), "user");
        assert_eq!(first(Some("\u{202e}.ädä-"), "x@example.com"), "d");
        assert_eq!(first(Some("Admin"), "x@example.com"), "Admin-2");
        assert_eq!(
            first(Some(&"x".repeat(300)), "x@example.com").len(),
            MAX_NAME_CHARS
        );
        let all = names(Some("ada"), "x@example.com");
        assert_eq!(all[..4], ["ada", "ada-2", "ada-3", "ada-4"]);
        assert!(all.len() == 5 && all[4].len() == "ada-123456".len());
    }

    #[test]
    fn invalid_subjects_and_addresses_are_rejected() {
        for subject in ["", "a\0b", "a\nb", &"x".repeat(MAX_SUBJECT_BYTES + 1)] {
            assert!(Account::new("https://issuer", subject).is_none());
        }
        let account = Account::new("https://issuer", "1").expect("an account");
        for email in [
            "a\0@example.com",
            &format!("{}@x", "x".repeat(MAX_EMAIL_BYTES)),
        ] {
            let account = account.clone().with_email(Some(email));
            assert_eq!(account.email, None);
        }
    }
}
