//! [`Secret`]: tokens, tickets and session ids. A secret is returned once and stored as its
//! SHA-256. A look-up compares hashes, so its time reveals nothing about the secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, Utc};
use rand::TryRng as _;
use runcast_common::connect::RedisFailure;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::Scope;
use crate::grant::Labels;
use runcast_store::audit::Actor;
use runcast_store::tokens::NewToken;
use runcast_store::{Store, StoreError};

/// What every token begins with, so that scanners for leaked secrets recognize it.
pub const TOKEN_PREFIX: &str = "rct_";

/// 256 random bits cannot be guessed at any rate.
const SECRET_BYTES: usize = 32;

/// The length of a secret in base64, without its prefix.
const SECRET_CHARS: usize = (SECRET_BYTES * 8).div_ceil(6);

/// A secret text. It does not appear in `Debug` or `Display` output.
#[derive(Debug, Clone)]
pub struct Secret(SecretString);

/// The random number generator of the system failed.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed: {0}")]
pub struct NoRandomness(String);

impl NoRandomness {
    /// An error with this cause.
    pub fn new(error: &impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Why a token or a ticket could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// Postgres could not store a token.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis could not store a ticket.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// The auth source of a ticket could not be encoded.
    #[error("cannot encode the auth source of a ticket as JSON: {0}")]
    Form(#[from] serde_json::Error),
    /// The text of a token of a run could not be derived.
    #[error("cannot derive the token of a run: {0}")]
    Derive(#[from] hmac::digest::InvalidLength),
    /// Each token of a run that could be issued was revoked at that moment.
    #[error("the tokens of this run are being revoked; try again")]
    Revoked,
    /// The run, or the user or token that asks for one of its tokens, was deleted meanwhile.
    #[error("the run does not exist any more")]
    Gone,
}

impl Secret {
    /// A new random secret that begins with `prefix`. If the system has no randomness it fails:
    /// weaker randomness is never used instead.
    pub fn generate(prefix: &str) -> Result<Self, NoRandomness> {
        let mut bytes = [0; SECRET_BYTES];
        rand::rngs::SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| NoRandomness::new(&error))?;
        Ok(Self::of_bytes(prefix, &bytes))
    }

    /// The secret that begins with `prefix` and consists of these bytes.
    pub(crate) fn of_bytes(prefix: &str, bytes: &[u8; SECRET_BYTES]) -> Self {
        Self(format!("{prefix}{}", BASE64.encode(bytes)).into())
    }

    /// A text that a client presents as a secret, or that was stored as one.
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned().into())
    }

    /// Whether it has the form of a token. Nothing else needs a look-up.
    pub fn is_token(&self) -> bool {
        self.begins_with(TOKEN_PREFIX)
    }

    /// Whether it has the form of a secret [generated](Self::generate) with this prefix.
    pub fn begins_with(&self, prefix: &str) -> bool {
        let random = self.0.expose_secret().strip_prefix(prefix);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        random.is_some_and(|random| random.len() == SECRET_CHARS && random.bytes().all(plain))
    }

    /// Its SHA-256, which is stored in its place.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.expose_secret().as_bytes()).into()
    }

    /// Its text, for the one reply that contains it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The properties of a new token.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest<'a> {
    /// Its name, such as that of the service that uses it.
    pub name: &'a str,
    /// Its scopes.
    pub scopes: &'a [Scope],
    /// The only run it is for, if set.
    pub run: Option<Uuid>,
    /// The labels that runs must have, if set.
    pub labels: Option<&'a Labels>,
    /// The user whose rights bound it, if set.
    pub user: Option<Uuid>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Issues a token: generates and stores it, and returns its id and the secret.
pub async fn issue_token(
    store: &Store,
    actor: &Actor,
    request: &TokenRequest<'_>,
) -> Result<(Uuid, Secret), IssueError> {
    let secret = Secret::generate(TOKEN_PREFIX)?;
    let scopes: Vec<String> = request.scopes.iter().map(ToString::to_string).collect();
    let token = NewToken {
        hash: secret.hash(),
        name: request.name,
        scopes: &scopes,
        run_id: request.run,
        labels: request.labels,
        user_id: request.user,
        expires_at: request.expires_at,
    };
    let id = store.create_token(actor, &token).await?;
    Ok((id, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_secrets_differ_and_do_not_print_themselves() {
        let (one, two) = (
            Secret::generate(TOKEN_PREFIX).expect("random"),
            Secret::generate(TOKEN_PREFIX).expect("random"),
        );
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), TOKEN_PREFIX.len() + 43);
        for printed in [format!("{one}"), format!("{one:?}")] {
            assert!(!printed.contains(one.expose()), "{printed}");
        }
        assert_eq!(Secret::from_text(one.expose()).hash(), one.hash());
        assert!(one.is_token());
        for other in ["", "rct_", "not-a-token", &one.expose()[..46]] {
            assert!(!Secret::from_text(other).is_token(), "{other}");
        }
    }
}
