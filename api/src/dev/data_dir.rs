//! The data folder of `runcastd dev` (`RUNCAST_DATA_DIR`, by default `.local`), and the secrets in
//! it.
//!
//! It holds the data, logs and passwords of the two servers; `token`, an admin token that is kept
//! from one start to the next; and `url`, the address of the gateway while it runs, by which
//! `runcast` finds it. Both are readable by their owner alone. `lock` is locked while a process
//! uses the folder, so a second one is refused.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use runcast_access::Scope;
use runcast_access::secret::{self, Secret};
use runcast_store::Store;
use runcast_store::audit::Actor;
use tracing::{info, warn};

/// Mode of the folder. Others may pass through: started by root, Postgres runs as another user.
const FOLDER_MODE: u32 = 0o711;

/// Mode of files with secrets.
const SECRET_MODE: u32 = 0o600;

/// The folder, used by this process alone.
#[derive(Debug)]
pub(super) struct DataDir {
    pub(super) path: PathBuf,
    /// Holds the lock as long as it is open.
    _lock: File,
}

/// The file `url`; it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct UrlFile(PathBuf);

impl Drop for UrlFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            warn!(%error, "cannot remove {}", self.0.display());
        }
    }
}

impl DataDir {
    /// Opens the folder, and creates it if it does not exist.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let unusable = || format!("RUNCAST_DATA_DIR: {} cannot be used", path.display());
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .with_context(unusable)?;
        let path = path.canonicalize().with_context(unusable)?;
        let lock = File::create(path.join("lock")).with_context(unusable)?;
        if lock.try_lock().is_err() {
            bail!(
                "RUNCAST_DATA_DIR: another `runcastd dev` uses {}: stop it, or choose another folder",
                path.display()
            );
        }
        Ok(Self { path, _lock: lock })
    }

    /// The file of the admin token.
    pub(super) fn token_path(&self) -> PathBuf {
        self.path.join("token")
    }

    /// The admin token. A new one is issued if the file is missing or belongs to another database.
    pub(super) async fn token(&self, store: &Store) -> anyhow::Result<Secret> {
        let path = self.token_path();
        if let Ok(text) = std::fs::read_to_string(&path) {
            let token = Secret::from_text(text.trim());
            if store.token(token.hash()).await?.is_some() {
                return Ok(token);
            }
        }
        let request = secret::TokenRequest {
            name: "admin",
            scopes: &[Scope::Admin],
            ..secret::TokenRequest::default()
        };
        let (_id, token) = secret::issue_token(store, &Actor::operator(), &request).await?;
        write_secret(&path, token.expose())?;
        info!(path = %path.display(), "issued an admin token");
        Ok(token)
    }

    /// Writes the address of the gateway into the file `url`, as long as the result lives.
    pub(super) fn publish_url(&self, url: &str) -> anyhow::Result<UrlFile> {
        let path = self.path.join("url");
        write_secret(&path, url)?;
        Ok(UrlFile(path))
    }
}

/// Writes a file that only its owner can read.
pub(super) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(SECRET_MODE)
        .open(path)
        .with_context(cannot)?;
    writeln!(file, "{text}").with_context(cannot)
}

/// A password that is generated at the first start and kept in this file.
pub(super) fn password(path: &Path) -> anyhow::Result<Secret> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Secret::from_text(text.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let password = Secret::generate("")?;
            write_secret(path, password.expose())?;
            Ok(password)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
