//! The token of a run: what the agents of one run, and the commands that they run, publish with.
//!
//! Its parent is the token or user that creates or joins the run. It can do nothing that the parent
//! cannot do at that moment, and it ends with the parent, with the run
//! ([`SEAL_GRACE`](runcast_store::tokens::SEAL_GRACE) after it was sealed), or after
//! [`RUN_TOKEN_LIFE`](runcast_store::run_tokens::RUN_TOKEN_LIFE) without being asked for. Its
//! requests count against the quotas of the parent.
//!
//! Its copy in Redis holds nothing of the rights of its parent, only where to find the parent. The
//! copy of the parent is read with it. So a change of the parent reaches all tokens that come from
//! it by the one change of access that announces it, however many they are.
//!
//! Its text is an HMAC of the run, keyed by the credential that asks for it. So a credential that
//! asks again gets the same token, though only its hash is stored, and no number of retries makes
//! more tokens than one for each credential and run. The text reveals nothing about the credential.
//! If it was revoked, the number of revoked tokens gives the next text.
//!
//! A token of a run is never a parent, and creates no runs. Where it joins its own run, it gets
//! itself.

use hmac::digest::InvalidLength;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::principal::Principal;
use crate::secret::{IssueError, Secret, TOKEN_PREFIX};
use crate::{Access, Scope};
use runcast_store::run_tokens::{RunToken, RunTokenIssue};

/// What the HMAC begins with, so that another use of the same key gives other values.
const PURPOSE: &[u8] = b"runcast token of a run";

/// Texts that are tried while others revoke them.
const MAX_TRIES: u32 = 4;

/// What a token of a run may do, as far as its parent may.
const RUN_TOKEN_SCOPES: [Scope; 2] = [Scope::Publish, Scope::Read];

impl Access {
    /// The token of a run for a principal that may publish to it and presented `credential`. It is
    /// new or has been issued to it before. A token of that run gets itself; a session that was
    /// opened with one gets none.
    pub async fn run_token(
        &self,
        principal: &Principal,
        credential: &Secret,
        run: Uuid,
    ) -> Result<Option<Secret>, IssueError> {
        if principal.is_of_run() {
            return Ok(Some(credential.clone()).filter(Secret::is_token));
        }
        let (store, parent) = (self.store(), principal.run_token_parent());
        let scopes = RUN_TOKEN_SCOPES.map(|scope| scope.to_string());
        let mut generation = 0;
        for _ in 0..MAX_TRIES {
            let text = text(credential, run, generation)?;
            let token = RunToken {
                hash: text.hash(),
                run,
                scopes: &scopes,
                parent,
            };
            match store.issue_run_token(&principal.actor(), &token).await? {
                RunTokenIssue::Valid => return Ok(Some(text)),
                RunTokenIssue::Renewed => {
                    self.settle().await;
                    return Ok(Some(text));
                }
                RunTokenIssue::Gone => return Err(IssueError::Gone),
                RunTokenIssue::Revoked => {
                    let revoked = store.revoked_run_tokens(run, parent).await?;
                    generation = revoked.max(generation + 1);
                }
            }
        }
        Err(IssueError::Revoked)
    }
}

/// The text of a token. HMAC takes a key of any length, so this fails in no case that occurs.
fn text(credential: &Secret, run: Uuid, generation: i64) -> Result<Secret, InvalidLength> {
    let mut mac = Hmac::<Sha256>::new_from_slice(credential.expose().as_bytes())?;
    mac.update(PURPOSE);
    mac.update(run.as_bytes());
    mac.update(&generation.to_be_bytes());
    let bytes = mac.finalize().into_bytes().into();
    Ok(Secret::of_bytes(TOKEN_PREFIX, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_depends_on_credential_run_and_generation() {
        let (one, other) = (
            Secret::from_text("rct_one"),
            Secret::from_text("rct_another"),
        );
        let (run, next) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let text = |credential, run, generation| text(credential, run, generation).expect("text");
        let first = text(&one, run, 0);
        assert!(first.is_token());
        assert_eq!(first.expose(), text(&one, run, 0).expose());
        for different in [
            text(&other, run, 0),
            text(&one, next, 0),
            text(&one, run, 1),
        ] {
            assert!(different.is_token());
            assert_ne!(first.expose(), different.expose());
        }
    }
}
