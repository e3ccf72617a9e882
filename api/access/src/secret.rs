//! Random secrets: tokens, tickets and session ids. They are shown once and stored as SHA-256.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, Utc};
use rand::TryRng as _;
use runcast_common::connect::RedisFailure;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::grant::Labels;
use crate::Scope;
use runcast_store::audit::Actor;
use runcast_store::tokens::{Minted, NewToken};
use runcast_store::{Store, StoreError};

/// What every token begins with, so that scanners for leaked secrets can know it.
pub const TOKEN_PREFIX: &str = "rct_";

/// 256 random bits cannot be guessed, at whatever rate.
const SECRET_BYTES: usize = 32;

/// The same as text.
const TOKEN_CHARS: usize = (SECRET_BYTES * 8).div_ceil(6);

/// How long the publish token that is minted with a run lives: longer than any run should.
const PUBLISH_TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A secret text that cannot print itself.
#[derive(Debug, Clone)]
pub struct Secret(SecretString);

/// The system has no random numbers to give.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed: {0}")]
pub struct NoRandomness(String);

impl NoRandomness {
    /// Because of what its generator says.
    pub fn new(error: &impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Why a token or a ticket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// A token could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A ticket could not be stored.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// What a ticket stands for could not be written.
    #[error("what it stands for has no form in JSON: {0}")]
    Form(#[from] serde_json::Error),
}

impl Secret {
    /// A new secret that begins with `prefix`.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system has none; weaker randomness is never used instead.
    pub fn generate(prefix: &str) -> Result<Self, NoRandomness> {
        let mut bytes = [0; SECRET_BYTES];
        rand::rngs::SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| NoRandomness::new(&error))?;
        Ok(Self(format!("{prefix}{}", BASE64.encode(bytes)).into()))
    }

    /// What somebody claims to be a secret of ours.
    #[must_use]
    pub fn claimed(text: &str) -> Self {
        Self(text.to_owned().into())
    }

    /// True if it has the form of a token: nothing else needs to be looked up.
    #[must_use]
    pub fn is_token(&self) -> bool {
        self.begins_with(TOKEN_PREFIX)
    }

    /// True if it has the form of what [`generate`](Self::generate) makes with this prefix.
    #[must_use]
    pub fn begins_with(&self, prefix: &str) -> bool {
        let random = self.0.expose_secret().strip_prefix(prefix);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        random.is_some_and(|random| random.len() == TOKEN_CHARS && random.bytes().all(plain))
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.expose_secret().as_bytes()).into()
    }

    /// Its text, for the one reply that shows it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a token is to be.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest<'a> {
    /// Whom it is for.
    pub name: &'a str,
    /// What it may do.
    pub scopes: &'a [Scope],
    /// The only run that it may touch.
    pub run: Option<Uuid>,
    /// Only runs with all of these labels.
    pub labels: Option<&'a Labels>,
    /// The user whose rights bound it.
    pub user: Option<Uuid>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Makes a token, stores it, and answers its id with it.
///
/// # Errors
/// [`IssueError`] if there is no randomness or the database could not take it.
pub async fn issue_token(
    store: &Store,
    actor: &Actor,
    wanted: &TokenRequest<'_>,
) -> Result<(Uuid, Secret), IssueError> {
    store_new(store, Minted::By(actor), wanted).await
}

/// Makes the token with which one run is published to, for whoever asks for the run.
///
/// # Errors
/// [`IssueError`] if there is no randomness or the database could not take it.
pub async fn mint_publish(store: &Store, actor: &Actor, run: Uuid) -> Result<Secret, IssueError> {
    let wanted = TokenRequest {
        name: &format!("run {run}"),
        scopes: &[Scope::Publish, Scope::Read],
        run: Some(run),
        expires_at: Some(Utc::now() + PUBLISH_TOKEN_LIFE),
        ..TokenRequest::default()
    };
    Ok(store_new(store, Minted::WithRun(actor), &wanted).await?.1)
}

async fn store_new(
    store: &Store,
    minted: Minted<'_>,
    wanted: &TokenRequest<'_>,
) -> Result<(Uuid, Secret), IssueError> {
    let secret = Secret::generate(TOKEN_PREFIX)?;
    let scopes: Vec<String> = wanted.scopes.iter().map(ToString::to_string).collect();
    let token = NewToken {
        hash: secret.hash(),
        name: wanted.name,
        scopes: &scopes,
        run_id: wanted.run,
        labels: wanted.labels,
        user_id: wanted.user,
        expires_at: wanted.expires_at,
    };
    let id = store.create_token(minted, &token).await?;
    Ok((id, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_do_not_print_themselves() {
        let (one, two) = (
            Secret::generate(TOKEN_PREFIX).expect("random"),
            Secret::generate(TOKEN_PREFIX).expect("random"),
        );
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), TOKEN_PREFIX.len() + 43);
        for shown in [format!("{one}"), format!("{one:?}")] {
            assert!(!shown.contains(one.expose()), "{shown}");
        }
        assert_eq!(Secret::claimed(one.expose()).hash(), one.hash());
        assert!(one.is_token());
        for other in ["", "rct_", "not-a-token", &one.expose()[..46]] {
            assert!(!Secret::claimed(other).is_token(), "{other}");
        }
    }
}
