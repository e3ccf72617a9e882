//! Random secrets: tokens and session ids. They are shown once and stored as SHA-256.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::Utc;
use rand::TryRng as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Scope;
use crate::store::tokens::NewToken;
use crate::store::{Store, StoreError};

/// What every token begins with, so that scanners for leaked secrets can know it.
pub const TOKEN_PREFIX: &str = "rct_";

/// 256 random bits cannot be guessed, at whatever rate.
const SECRET_BYTES: usize = 32;

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
    pub(crate) fn new(error: &impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
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

/// Makes a token and stores it.
///
/// # Errors
/// [`MintError`] if there is no randomness or the database could not take it.
pub async fn mint(store: &Store, name: &str, scopes: &[Scope]) -> Result<Secret, MintError> {
    mint_for(store, name, scopes, None, None).await
}

/// Makes the token with which one run is published to.
///
/// # Errors
/// [`MintError`] if there is no randomness or the database could not take it.
pub async fn mint_publish(store: &Store, run: Uuid) -> Result<Secret, MintError> {
    let name = format!("run {run}");
    let scopes = [Scope::Publish, Scope::Read];
    mint_for(store, &name, &scopes, Some(run), Some(PUBLISH_TOKEN_LIFE)).await
}

async fn mint_for(
    store: &Store,
    name: &str,
    scopes: &[Scope],
    run_id: Option<Uuid>,
    life: Option<Duration>,
) -> Result<Secret, MintError> {
    let secret = Secret::generate(TOKEN_PREFIX)?;
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let token = NewToken {
        hash: secret.hash(),
        name,
        scopes: &scopes,
        run_id,
        expires_at: life.map(|life| Utc::now() + life),
    };
    store.create_token(&token).await?;
    Ok(secret)
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
    }
}
