//! Authentication: from the credential that a request presents to its [`Principal`].
//!
//! A ticket is read from Redis, a token or session from its copy in Redis or from Postgres. The
//! rights are always those of now: of a token its scopes, bounded by the rights of its user; of a
//! token of a run also by the rights of its parent, with which it ends; of a user their roles; of a
//! session those of its user or token.

use uuid::Uuid;

use crate::Access;
use crate::credential::{Credential, PresentedCredential};
use crate::error::AccessError;
use crate::grant::Grant;
use crate::principal::{ParentIds, Principal};
use crate::secret::Secret;
use runcast_store::sessions::SessionRow;
use runcast_store::tokens::TokenRow;

impl Principal {
    /// Authenticates a request. A token counts as used, and the end of a session moves forward.
    pub async fn authenticate(
        access: &Access,
        presented: PresentedCredential,
    ) -> Result<Self, AccessError> {
        // Read first: a change that arrives during the look-up makes the generations differ.
        let revocation_generation = access.open_streams().revocation_generation();
        let principal = match presented {
            PresentedCredential::Ticket(ticket) => Self::of_ticket(access, &ticket).await?,
            PresentedCredential::Bearer(token) => {
                let principal = Self::of_secret(access, &token).await?;
                access.usage_log().record_use(principal.id);
                principal
            }
            PresentedCredential::Session(session) => Self::of_session(access, &session).await?,
            PresentedCredential::Malformed => {
                let expected = "expected Authorization: Bearer <token>";
                return Err(denied(access, "malformed", expected));
            }
            PresentedCredential::Absent => {
                let expected = "sign in, or send Authorization: Bearer <token>";
                return Err(denied(access, "none", expected));
            }
        };
        Ok(Self {
            revocation_generation,
            ..principal
        })
    }

    /// The principal that created a ticket, within the bounds of the ticket. The ticket is used up,
    /// even if its creator has no rights any more.
    async fn of_ticket(access: &Access, ticket: &Secret) -> Result<Self, AccessError> {
        match access.tickets().redeem(ticket).await? {
            Some(auth_source) => {
                let principal = Self::of(access, auth_source.credential).await?;
                Ok(principal.by_ticket(auth_source.ticket.as_ref()))
            }
            None => {
                let expected = "the ticket is unknown, expired or used already: get another one";
                Err(denied(access, "ticket", expected))
            }
        }
    }

    /// The principal of a token. It does not count as a use.
    pub async fn of_secret(access: &Access, token: &Secret) -> Result<Self, AccessError> {
        match token.is_token() {
            true => Self::of(access, Credential::Token(token.hash())).await,
            false => Err(unknown_token(access)),
        }
    }

    /// The principal of a credential, with its present rights. It does not count as a use: the end
    /// of a session does not move.
    pub async fn of(access: &Access, credential: Credential) -> Result<Self, AccessError> {
        match credential {
            Credential::Token(hash) => match access.credentials().token(hash).await? {
                Some(row) => Self::of_token(access, row, hash).await,
                None => Err(unknown_token(access)),
            },
            Credential::Session(hash) => {
                let row = access.sessions().peek(hash).await?;
                Self::of_session_row(access, row, hash).await
            }
            Credential::User(user) => Self::of_user(access, user).await,
        }
    }

    async fn of_session(access: &Access, session: &Secret) -> Result<Self, AccessError> {
        let hash = session.hash();
        let row = access.sessions().get(hash).await?;
        Self::of_session_row(access, row, hash).await
    }

    async fn of_session_row(
        access: &Access,
        row: Option<SessionRow>,
        hash: [u8; 32],
    ) -> Result<Self, AccessError> {
        let ended = || denied(access, "session", "the session has ended: sign in again");
        let row = row.ok_or_else(ended)?;
        let principal = match (row.user_id, row.token.as_deref().and_then(unhex)) {
            (Some(user), _) => Self::of_user(access, user).await?,
            (None, Some(hash)) => {
                let token = access.credentials().token(hash).await?.ok_or_else(ended)?;
                Self::of_token(access, token, hash).await?
            }
            (None, None) => return Err(ended()),
        };
        Ok(Self {
            session: Some(row.id),
            auth_source: Credential::Session(hash).into(),
            ..principal
        })
    }

    /// A user with their present rights: 401 if they are disabled or deleted.
    pub async fn of_user(access: &Access, user: Uuid) -> Result<Self, AccessError> {
        let permissions = access.credentials().permissions(user).await?;
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
            of_run: false,
            parent: ParentIds::default(),
            address: None,
            auth_source: Credential::User(user).into(),
            revocation_generation: 0,
            metrics: access.metrics().clone(),
        })
    }

    async fn of_token(access: &Access, row: TokenRow, hash: [u8; 32]) -> Result<Self, AccessError> {
        let mut grants = Self::token_grants(access, &row).await?;
        let mut parent = ParentIds::default();
        if let Some(parent_hash) = &row.parent {
            let theirs = Self::parent_row(access, parent_hash).await?;
            let bounds = Self::token_grants(access, &theirs).await?;
            grants = intersection(&grants, &bounds);
            parent.token = Some(theirs.id);
            parent.user = theirs.user_id;
        } else if row.of_run {
            parent.user = row.user_id;
        }
        Ok(Self {
            id: row.id,
            name: row.name,
            user: row.user_id.filter(|_| !row.of_run),
            session: None,
            by_token: true,
            of_run: row.of_run,
            parent,
            address: None,
            grants,
            auth_source: Credential::Token(hash).into(),
            revocation_generation: 0,
            metrics: access.metrics().clone(),
        })
    }

    /// The grants of a token, within the present rights of its user.
    async fn token_grants(access: &Access, row: &TokenRow) -> Result<Vec<Grant>, AccessError> {
        let own = vec![Grant::of_token(row)];
        match row.user_id {
            None => Ok(own),
            Some(user) => Ok(intersection(
                &own,
                &Self::of_user(access, user).await?.grants,
            )),
        }
    }

    /// The parent of a token of a run: 401 if it has ended. A parent has no parent; the schema
    /// holds that, and nothing depends on it here but that no right comes of it.
    async fn parent_row(access: &Access, hash: &str) -> Result<TokenRow, AccessError> {
        let row = match unhex(hash) {
            Some(hash) => access.credentials().token(hash).await?,
            None => None,
        };
        row.filter(|row| !row.of_run).ok_or_else(|| {
            let ended = "the token that this token of a run comes from is expired or revoked";
            denied(access, "parent", ended)
        })
    }
}

/// What both sets of grants allow.
fn intersection(some: &[Grant], others: &[Grant]) -> Vec<Grant> {
    let mut all = Vec::new();
    for one in some {
        for both in others.iter().filter_map(|other| one.and(other)) {
            // Several roles may grant the same.
            if !all.contains(&both) {
                all.push(both);
            }
        }
    }
    all
}

fn unknown_token(access: &Access) -> AccessError {
    denied(access, "token", "the token is unknown, expired or revoked")
}

fn denied(access: &Access, reason: &'static str, message: &'static str) -> AccessError {
    access.metrics().denied(reason);
    AccessError::Unauthorized(message)
}

/// Decodes 64 hexadecimal digits.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_decoded_from_hexadecimal_digits() {
        let digits = "0f".repeat(32);
        assert_eq!(unhex(&digits), Some([15; 32]));
        for wrong in [&digits[..62], &"xy".repeat(32), &"é".repeat(32)] {
            assert_eq!(unhex(wrong), None);
        }
    }
}
