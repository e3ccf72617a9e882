//! Whose user it is that an issuer has vouched for.
//!
//! Once somebody is linked, their subject decides, whatever their address becomes here or there. Who is not yet is linked to
//! the user with their address, if the issuer has verified that and nobody else of the issuer is linked to them; else they
//! become a new user, where the operator wants that. Of two that come at once the indexes let one be the first, and
//! the other looks again.

use rand::RngExt as _;
use serde_json::json;
use tracing::error;
use uuid::Uuid;

use super::super::access::Access;
use super::flow::SignInRefused;
use runcast_store::audit::Actor;
use runcast_store::identities::{Identified, Identity};
use runcast_store::users::{NewUser, UserError};

/// Longest subject, by the specification, and longest address, in bytes.
const MOST_SUBJECT: usize = 255;
const MOST_EMAIL: usize = 254;

/// Longest name that is made, so that something fits behind it.
const MOST_NAME: usize = 48;

/// Looks, each after somebody else has been quicker.
const LOOKS: usize = 3;

/// Names that are tried for a new user.
const NAMES: usize = 5;

/// Names that say something in the audit log, and are nobody's by chance.
const RESERVED: [&str; 4] = ["admin", "root", "runcastd", "unknown"];

/// True if an issuer may call somebody so.
#[must_use]
pub fn is_subject(text: &str) -> bool {
    (1..=MOST_SUBJECT).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Who somebody is, as the issuer says and has proved.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    issuer: String,
    subject: String,
    /// Only one that the issuer has verified.
    email: Option<String>,
    /// What they would like to be called.
    name: Option<String>,
}

impl Account {
    /// None if the issuer calls them what no issuer should.
    pub(super) fn new(issuer: &str, subject: &str) -> Option<Self> {
        is_subject(subject).then(|| Self {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            ..Self::default()
        })
    }

    /// With an address that the issuer has verified, if it can be one.
    pub(super) fn with_email(mut self, email: Option<&str>) -> Self {
        let fits = |email: &&str| email.len() <= MOST_EMAIL && !email.chars().any(char::is_control);
        self.email = email.filter(fits).map(str::to_owned);
        self
    }

    /// With what they would like to be called.
    pub(super) fn with_name(mut self, name: Option<&str>) -> Self {
        self.name = name.map(str::to_owned);
        self
    }

    /// Names for a new user, the best first.
    fn names(&self, email: &str) -> impl Iterator<Item = String> {
        let wanted = self.name.as_deref().unwrap_or(email);
        // Some are called by their address; and a name is never one.
        let wanted = wanted.split('@').next().unwrap_or_default();
        let plain = |char: char| match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => char,
            _ => '-',
        };
        let name: String = wanted.chars().take(MOST_NAME).map(plain).collect();
        let name = name.trim_matches(['.', '_', '-']).to_owned();
        let name = if name.is_empty() {
            "user".to_owned()
        } else {
            name
        };
        let is_free = !RESERVED.iter().any(|one| name.eq_ignore_ascii_case(one));
        let itself = is_free.then(|| name.clone());
        let numbered = (2..NAMES).map({
            let name = name.clone();
            move |number| format!("{name}-{number}")
        });
        let random = format!("{name}-{:06x}", rand::rng().random_range(0..1 << 24));
        itself.into_iter().chain(numbered).chain([random])
    }
}

/// How it was found out whose user somebody is.
enum AccountMatch {
    Found(Uuid),
    /// Somebody else was quicker.
    Again,
}

impl Access {
    /// The user who somebody is; made with this role if there is none.
    ///
    /// # Errors
    /// [`SignInRefused`], which is written down with its reason.
    pub(super) async fn user_of(
        &self,
        person: &Account,
        role: Option<&str>,
    ) -> Result<Uuid, SignInRefused> {
        for _ in 0..LOOKS {
            let known = self.store().identified(&person.issuer, &person.subject);
            if let Some(user) = known.await? {
                return match user.disabled {
                    true => Err(self.refuse(person, "disabled", Some(&user)).await),
                    false => Ok(user.id),
                };
            }
            if let AccountMatch::Found(user) = self.new_identity(person, role).await? {
                return Ok(user);
            }
        }
        Err(self.refuse(person, "contended", None).await)
    }

    async fn new_identity(
        &self,
        person: &Account,
        role: Option<&str>,
    ) -> Result<AccountMatch, SignInRefused> {
        let Some(email) = person.email.as_deref() else {
            return Err(self.refuse(person, "unverified", None).await);
        };
        let identity = Identity {
            issuer: &person.issuer,
            subject: &person.subject,
            email,
        };
        if let Some(user) = self.store().addressed(email).await? {
            // Postgres takes more for the same than mail does: some letters become ASCII ones when they get small.
            if !user.email.eq_ignore_ascii_case(email) {
                return Err(self.refuse(person, "similar", Some(&user)).await);
            }
            if user.disabled {
                return Err(self.refuse(person, "disabled", Some(&user)).await);
            }
            let themselves = Actor {
                id: Some(user.id),
                name: user.name.clone(),
            };
            if self.store().link(&themselves, &identity, user.id).await? {
                return Ok(AccountMatch::Found(user.id));
            }
            let known = self.store().identified(&person.issuer, &person.subject);
            return match known.await? {
                Some(_) => Ok(AccountMatch::Again),
                None => Err(self.refuse(person, "linked", Some(&user)).await),
            };
        }
        match role {
            Some(role) => self.new_user(person, &identity, role).await,
            None => Err(self.refuse(person, "unknown", None).await),
        }
    }

    async fn new_user(
        &self,
        person: &Account,
        identity: &Identity<'_>,
        role: &str,
    ) -> Result<AccountMatch, SignInRefused> {
        let roles = [role.to_owned()];
        for name in person.names(identity.email) {
            let new = NewUser {
                name: &name,
                email: identity.email,
                password: None,
                roles: &roles,
            };
            match self.store().create_identified(identity, &new).await {
                Ok(Some(user)) => return Ok(AccountMatch::Found(user)),
                Ok(None) | Err(UserError::EmailTaken(_)) => return Ok(AccountMatch::Again),
                Err(UserError::NameTaken(_)) => {}
                Err(UserError::Store(failure)) => return Err(failure.into()),
                Err(failure) => {
                    error!(error = %failure, "no user can be made for whom the issuer knows");
                    return Err(self.refuse(person, "unfit", None).await);
                }
            }
        }
        Err(self.refuse(person, "names", None).await)
    }

    /// Writes down who was not let in, and why; they are told less.
    async fn refuse(
        &self,
        person: &Account,
        reason: &'static str,
        user: Option<&Identified>,
    ) -> SignInRefused {
        let nobody = Actor {
            id: None,
            name: "unknown".to_owned(),
        };
        let target = user.map_or_else(|| person.subject.clone(), |user| user.id.to_string());
        let details = json!({
            "by": "oidc",
            "reason": reason,
            "issuer": person.issuer,
            "subject": person.subject,
            "email": person.email,
        });
        let store = self.store();
        let written = store.audit(&nobody, "session.refused", &target, details);
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
        let person = Account::new("https://issuer", "1").expect("a person");
        person.with_name(name).names(email).collect()
    }

    #[test]
    fn a_new_user_gets_a_name_that_can_be_one() {
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
            MOST_NAME
        );
        let all = names(Some("ada"), "x@example.com");
        assert_eq!(all[..4], ["ada", "ada-2", "ada-3", "ada-4"]);
        assert!(all.len() == 5 && all[4].len() == "ada-123456".len());
    }

    #[test]
    fn what_no_issuer_should_say_is_not_taken() {
        for subject in ["", "a\0b", "a\nb", &"x".repeat(MOST_SUBJECT + 1)] {
            assert!(Account::new("https://issuer", subject).is_none());
        }
        let person = Account::new("https://issuer", "1").expect("a person");
        for email in ["a\0@example.com", &format!("{}@x", "x".repeat(MOST_EMAIL))] {
            let person = person.clone().with_email(Some(email));
            assert_eq!(person.email, None);
        }
    }
}
