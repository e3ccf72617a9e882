//! Passwords: argon2id, off the runtime's threads, and only so many at a time.
//!
//! Parameters are those that OWASP's Password Storage Cheat Sheet names for argon2id with little memory: 19 MiB, 2 passes,
//! 1 lane, about 20 ms of one core. Half of the cores work on passwords at most, so that a flood of sign-ins cannot keep
//! streams waiting; [`MOST_WAITING`] wait, for [`WAIT`] at most, and whoever comes then is told to come later.
//! A check does the same work and takes the same time whether there is such a user, with a password, or not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, PasswordHash, Version};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Shortest and longest password: the former by NIST SP 800-63B with a margin, the latter so that nobody sends novels.
pub const MIN_CHARS: usize = 12;
/// Longest password, in bytes.
pub const MAX_BYTES: usize = 1024;

/// Longest wait for a turn.
const WAIT: Duration = Duration::from_secs(2);

/// How many wait at most, for each that is being worked on: what is done within [`WAIT`], and not more.
const MOST_WAITING: usize = 32;

/// Why a password could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It cannot be a password.
    #[error("a password has {MIN_CHARS} characters at least and {MAX_BYTES} bytes at most")]
    Unfit,
    /// Too many sign in at the moment.
    #[error("too many passwords are being checked at the moment; try again")]
    Busy,
    /// The hash function failed.
    #[error("a password could not be hashed: {0}")]
    Failed(String),
}

/// Works on passwords. Cloning is cheap; clones share their bounds.
#[derive(Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    /// Of nobody's password: checked where there is none, so that this takes as long.
    decoy: Arc<str>,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

impl Passwords {
    /// Hashes a password of nobody once.
    ///
    /// # Errors
    /// [`PasswordError::Failed`] if there is no randomness.
    pub fn new() -> Result<Self, PasswordError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = (cores / 2).max(1);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
        let decoy = hash(&argon2, &format!("{:032x}", rand::random::<u128>()))?;
        Ok(Self {
            argon2,
            decoy: decoy.into(),
            places: Arc::new(Semaphore::new(turns * (MOST_WAITING + 1))),
            turns: Arc::new(Semaphore::new(turns)),
        })
    }

    /// The hash of a new password, as a PHC string.
    ///
    /// # Errors
    /// [`PasswordError`], also for one that is too short.
    pub async fn hash(&self, password: &SecretString) -> Result<String, PasswordError> {
        let text = password.expose_secret();
        if text.chars().count() < MIN_CHARS || text.len() > MAX_BYTES {
            return Err(PasswordError::Unfit);
        }
        let (argon2, password) = (self.argon2.clone(), password.clone());
        self.work(move || hash(&argon2, password.expose_secret()))
            .await?
    }

    /// Whether this is the password behind a hash; never, and as slowly, where there is none.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] if too many wait, [`PasswordError::Failed`] if the hash is none.
    pub async fn check(
        &self,
        password: &SecretString,
        hash: Option<&str>,
    ) -> Result<bool, PasswordError> {
        let is_real = hash.is_some();
        let hash = hash.map_or_else(|| Arc::clone(&self.decoy), Arc::from);
        let (argon2, password) = (self.argon2.clone(), password.clone());
        let checked = self.work(move || {
            // A novel is no password, and hashing it would take longer.
            let text = password.expose_secret().as_bytes();
            let text = &text[..text.len().min(MAX_BYTES + 1)];
            let hash = PasswordHash::new(&hash).map_err(|error| failed(&error))?;
            match argon2.verify_password(text, &hash) {
                Ok(()) => Ok(true),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(failed(&error)),
            }
        });
        Ok(checked.await?? && is_real)
    }

    /// Does it on a thread for blocking work. The turn goes along: who leaves early does not let another one begin before
    /// the work is done.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let busy = |_| PasswordError::Busy;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(busy)?;
        let turn = timeout(WAIT, Arc::clone(&self.turns).acquire_owned());
        let turn: OwnedSemaphorePermit = match turn.await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_closed)) => return Err(PasswordError::Busy),
            Err(_elapsed) => return Err(PasswordError::Busy),
        };
        let working = tokio::task::spawn_blocking(move || {
            let _held = (turn, place);
            work()
        });
        working.await.map_err(|error| failed(&error))
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> Result<String, PasswordError> {
    let hash: PasswordHash = argon2
        .hash_password(password.as_bytes())
        .map_err(|error| failed(&error))?;
    Ok(hash.to_string())
}

fn failed(error: &impl fmt::Display) -> PasswordError {
    PasswordError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[tokio::test]
    async fn only_the_password_itself_is_right() {
        let passwords = Passwords::new().expect("random");
        let hash = passwords
            .hash(&secret("correct horse"))
            .await
            .expect("a hash");
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let again = passwords
            .hash(&secret("correct horse"))
            .await
            .expect("a hash");
        assert_ne!(hash, again, "salted");
        let check = async |text: &str, hash| passwords.check(&secret(text), hash).await;
        assert!(check("correct horse", Some(&hash)).await.expect("checked"));
        assert!(!check("correct house", Some(&hash)).await.expect("checked"));
        assert!(!check("correct horse", None).await.expect("checked"));
        check("correct horse", Some("$plain$x"))
            .await
            .expect_err("no hash");
        for unfit in ["short", &"x".repeat(MAX_BYTES + 1)] {
            let refused = passwords.hash(&secret(unfit)).await;
            assert!(matches!(refused, Err(PasswordError::Unfit)));
        }
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_so() {
        let passwords = Passwords::new().expect("random");
        let all = u32::try_from(passwords.places.available_permits()).expect("few");
        let places = Arc::clone(&passwords.places);
        let taken = places.acquire_many_owned(all).await.expect("all places");
        let refused = passwords.check(&secret("whoever"), None).await;
        assert!(matches!(refused, Err(PasswordError::Busy)));
        drop(taken);
        assert!(
            !passwords
                .check(&secret("whoever"), None)
                .await
                .expect("checked")
        );
    }
}
