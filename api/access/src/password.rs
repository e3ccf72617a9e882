//! [`Passwords`]: hashes and verifies passwords with argon2id, on blocking threads, a bounded
//! number at a time.
//!
//! The parameters are those of OWASP's Password Storage Cheat Sheet for argon2id with little
//! memory: 19 MiB, 2 passes, 1 lane, about 20 ms of one core. At most half of the cores work on
//! passwords, so that a flood of sign-ins cannot delay streams. For each of these cores, up to
//! [`MAX_WAITING_TASKS`] tasks wait, for [`QUEUE_DEADLINE`] at most; further ones are refused as
//! [`PasswordError::Busy`]. A check does the same work and takes the same time whether or not the
//! user exists and has a password.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, PasswordHash, Version};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Shortest password, in characters: NIST SP 800-63B with a margin.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// Longest password: bounds the work of hashing.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// Longest wait of a task before it is worked on.
const QUEUE_DEADLINE: Duration = Duration::from_secs(2);

/// Tasks that wait, for each that is worked on: as many as finish within [`QUEUE_DEADLINE`].
const MAX_WAITING_TASKS: usize = 32;

/// Why a password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It is too short or too long.
    #[error(
        "a password has {MIN_PASSWORD_CHARS} characters at least and {MAX_PASSWORD_BYTES} bytes at most"
    )]
    InvalidLength,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked at the moment; try again")]
    Busy,
    /// The hash function failed.
    #[error("a password could not be hashed: {0}")]
    Failed(String),
}

/// Hashes and verifies passwords. Cloning is cheap; clones share their bounds.
#[derive(Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    /// The hash of a random password. It is checked where a user has none, to take as long.
    decoy: Arc<str>,
    /// Bounds tasks that wait or run.
    admission: Arc<Semaphore>,
    /// Bounds tasks that run.
    workers: Arc<Semaphore>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

impl Passwords {
    /// Hashes a random password once.
    pub fn new() -> Result<Self, PasswordError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = (cores / 2).max(1);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
        let decoy = hash(&argon2, &format!("{:032x}", rand::random::<u128>()))?;
        Ok(Self {
            argon2,
            decoy: decoy.into(),
            admission: Arc::new(Semaphore::new(workers * (MAX_WAITING_TASKS + 1))),
            workers: Arc::new(Semaphore::new(workers)),
        })
    }

    /// The hash of a new password, as a PHC string.
    pub async fn hash(&self, password: &SecretString) -> Result<String, PasswordError> {
        let text = password.expose_secret();
        if text.chars().count() < MIN_PASSWORD_CHARS || text.len() > MAX_PASSWORD_BYTES {
            return Err(PasswordError::InvalidLength);
        }
        let (argon2, password) = (self.argon2.clone(), password.clone());
        self.run(move || hash(&argon2, password.expose_secret()))
            .await?
    }

    /// Whether a password has this hash. Without a hash it is false, after the same time.
    pub async fn check(
        &self,
        password: &SecretString,
        hash: Option<&str>,
    ) -> Result<bool, PasswordError> {
        let is_real = hash.is_some();
        let hash = hash.map_or_else(|| Arc::clone(&self.decoy), Arc::from);
        let (argon2, password) = (self.argon2.clone(), password.clone());
        let checked = self.run(move || {
            // Only as much of a text as can be a password: hashing more would take longer.
            let text = password.expose_secret().as_bytes();
            let text = &text[..text.len().min(MAX_PASSWORD_BYTES + 1)];
            let hash = PasswordHash::new(&hash).map_err(|error| failed(&error))?;
            match argon2.verify_password(text, &hash) {
                Ok(()) => Ok(true),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(failed(&error)),
            }
        });
        Ok(checked.await?? && is_real)
    }

    /// Runs `work` on a blocking thread. The permits move to that thread: if the caller gives up
    /// early, the next task still waits until this work is done.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let busy = |_| PasswordError::Busy;
        let admitted = Arc::clone(&self.admission)
            .try_acquire_owned()
            .map_err(busy)?;
        let worker = timeout(QUEUE_DEADLINE, Arc::clone(&self.workers).acquire_owned());
        let worker: OwnedSemaphorePermit = match worker.await {
            Ok(Ok(worker)) => worker,
            Ok(Err(_closed)) => return Err(PasswordError::Busy),
            Err(_elapsed) => return Err(PasswordError::Busy),
        };
        let working = tokio::task::spawn_blocking(move || {
            let _permits = (worker, admitted);
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
    async fn a_hash_verifies_only_its_password() {
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
        for unfit in ["short", &"x".repeat(MAX_PASSWORD_BYTES + 1)] {
            let refused = passwords.hash(&secret(unfit)).await;
            assert!(matches!(refused, Err(PasswordError::InvalidLength)));
        }
    }

    #[tokio::test]
    async fn a_check_is_refused_as_busy_when_the_queue_is_full() {
        let passwords = Passwords::new().expect("random");
        let all = u32::try_from(passwords.admission.available_permits()).expect("few");
        let admission = Arc::clone(&passwords.admission);
        let all = admission.acquire_many_owned(all).await;
        let permits = all.expect("all permits");
        let refused = passwords.check(&secret("any password"), None).await;
        assert!(matches!(refused, Err(PasswordError::Busy)));
        drop(permits);
        assert!(
            !passwords
                .check(&secret("any password"), None)
                .await
                .expect("checked")
        );
    }
}
