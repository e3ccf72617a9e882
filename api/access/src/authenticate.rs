//! Whom a credential stands for: a ticket in the address where one is taken, else a token in the `Authorization` header,
//! else a session in a cookie.

use uuid::Uuid;

use super::access::Access;
use super::grant::Grant;
use super::principal::Principal;
use super::secret::Secret;
use crate::credential::{Credential, PresentedCredential};
use crate::error::AccessError;
use runcast_store::sessions::SessionRow;
use runcast_store::tokens::TokenRow;

impl Principal {
    /// Finds out who sent a request: by its ticket if the route `takes_ticket`, else by its token, else by its session.
    ///
    /// # Errors
    /// 401 without a valid credential, 403 for a write with a cookie that another site made a browser send, 503 if a
    /// store that has to be asked does not answer.
    pub async fn authenticate(
        access: &Access,
        presented: PresentedCredential,
    ) -> Result<Self, AccessError> {
        let heard = access.openings().heard();
        let principal = match presented {
            PresentedCredential::Ticket(ticket) => Self::of_ticket(access, &ticket).await?,
            PresentedCredential::Bearer(token) => {
                let principal = Self::of_secret(access, &token).await?;
                access.note_use(principal.id);
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
        Ok(Self { heard, ..principal })
    }

    /// Whoever has made a ticket, as it bounds them. It is used up whatever comes of it.
    async fn of_ticket(access: &Access, ticket: &Secret) -> Result<Self, AccessError> {
        match access.take_ticket(ticket).await? {
            Some(basis) => {
                let principal = Self::of(access, basis.credential).await?;
                Ok(principal.by_ticket(basis.ticket.as_ref()))
            }
            None => {
                let expected = "the ticket is unknown, expired or used already: get another one";
                Err(denied(access, "ticket", expected))
            }
        }
    }

    /// Who a token stands for.
    ///
    /// # Errors
    /// 401 if it is not valid.
    pub async fn of_secret(access: &Access, token: &Secret) -> Result<Self, AccessError> {
        match token.is_token() {
            true => Self::of(access, Credential::Token(token.hash())).await,
            false => Err(unknown(access)),
        }
    }

    /// Whom a credential stands for now. It does not count as a use of it: the end of a session stays where it is.
    ///
    /// # Errors
    /// 401 if it is not valid any more, 503 if nobody can say.
    pub async fn of(access: &Access, credential: Credential) -> Result<Self, AccessError> {
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

    async fn of_session(access: &Access, session: &Secret) -> Result<Self, AccessError> {
        let hash = session.hash();
        let row = access.session(hash).await?;
        Self::of_row(access, row, hash).await
    }

    async fn of_row(
        access: &Access,
        row: Option<SessionRow>,
        hash: [u8; 32],
    ) -> Result<Self, AccessError> {
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
            basis: Credential::Session(hash).into(),
            ..principal
        })
    }

    /// What a user may do now.
    ///
    /// # Errors
    /// 401 if there is no such user any more, or they are disabled.
    pub async fn of_user(access: &Access, user: Uuid) -> Result<Self, AccessError> {
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
            basis: Credential::User(user).into(),
            heard: 0,
            meter: access.meter().clone(),
        })
    }

    async fn of_token(access: &Access, row: TokenRow, hash: [u8; 32]) -> Result<Self, AccessError> {
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
            basis: Credential::Token(hash).into(),
            heard: 0,
            meter: access.meter().clone(),
        })
    }
}

fn unknown(access: &Access) -> AccessError {
    denied(access, "token", "the token is unknown, expired or revoked")
}

fn denied(access: &Access, reason: &'static str, words: &'static str) -> AccessError {
    access.meter().denied(reason);
    AccessError::Unauthorized(words)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_read() {
        let digits = "0f".repeat(32);
        assert_eq!(unhex(&digits), Some([15; 32]));
        for wrong in [&digits[..62], &"xy".repeat(32), &"é".repeat(32)] {
            assert_eq!(unhex(wrong), None);
        }
    }
}
