//! Where archived runs lie: a folder, or a bucket of S3 or of a store that speaks its protocol.
//!
//! An object has one name for ever and is written by one attempt ([`super::upload`]), so nothing is ever written
//! over. Only whoever has a row for an object in Postgres removes it, and with it what an upload left.
//!
//! Every request has a deadline, [`REQUEST_DEADLINE`], and is repeated for [`RETRY_DEADLINE`] at most.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _,
    RetryConfig,
};
use runcast_common::config::{ConfigError, Env};
use url::Url;
use uuid::Uuid;

use runcast_store::archives::day_of;

/// The setting that names the place.
pub const SETTING: &str = "RUNCAST_ARCHIVE";

/// Longest wait for one request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Longest time for which a request that failed is repeated.
const RETRY_DEADLINE: Duration = Duration::from_secs(10);

/// Settings of AWS that are passed on to the client: who we are, where the bucket is, how it is kept.
const AWS_SETTINGS: [&str; 20] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_SSE_BUCKET_KEY_ENABLED",
];

/// Why the place could not do what was asked. It names the place, never a credential.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveStoreError {
    /// The object is not there.
    #[error("{place} does not hold {object}")]
    Missing {
        /// Where it should be.
        place: String,
        /// Its name.
        object: String,
    },
    /// The place does not answer, or refuses.
    #[error("{place} cannot be used: {reason}")]
    Unreachable {
        /// The place.
        place: String,
        /// What it said, or what came in between.
        reason: String,
    },
}

/// A place for objects. Cloning is cheap.
#[derive(Clone)]
pub struct ArchiveStore {
    address: String,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) kind: Kind,
}

/// Which of the two it is.
#[derive(Clone)]
pub(super) enum Kind {
    Folder(PathBuf),
    Bucket(Arc<PrefixStore<AmazonS3>>),
}

impl fmt::Debug for ArchiveStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl fmt::Display for ArchiveStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The name of an object: by the day on which its run was created, then the run, then the attempt.
#[must_use]
pub fn object_name(run: Uuid, id: Uuid) -> String {
    let day = day_of(run).format("%Y/%m/%d");
    format!("{day}/{run}/{id}.ndjson.zst")
}

impl ArchiveStore {
    /// The place that [`SETTING`] names, if it names one. A folder must be there: one that is made in the place of
    /// a disk that is not mounted would look as if it had lost everything.
    ///
    /// # Errors
    /// [`ConfigError`] that names the setting.
    pub fn from_env(env: &impl Env) -> Result<Option<Self>, ConfigError> {
        let Some(text) = env.get(SETTING) else {
            return Ok(None);
        };
        let place = match Url::parse(&text) {
            Ok(url) if url.scheme() == "file" => Self::folder(&url),
            Ok(url) if url.scheme() == "s3" => Self::bucket(&url, env),
            _ => Err("expected file:///folder or s3://bucket/prefix".to_owned()),
        };
        let invalid = |reason| ConfigError::Invalid {
            name: SETTING,
            reason,
        };
        place.map(Some).map_err(invalid)
    }

    fn folder(url: &Url) -> Result<Self, String> {
        let path = url
            .to_file_path()
            .ok()
            .filter(|path| path.parent().is_some());
        let path = path.ok_or("expected a folder of this machine: file:///folder")?;
        let failed =
            |error: &dyn fmt::Display| format!("{} cannot be used: {error}", path.display());
        if !std::fs::metadata(&path)
            .map_err(|error| failed(&error))?
            .is_dir()
        {
            return Err(failed(&"it is no folder"));
        }
        let objects = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| failed(&error))?
            .with_automatic_cleanup(true)
            .with_fsync(true);
        Ok(Self {
            address: url.to_string(),
            objects: Arc::new(objects),
            kind: Kind::Folder(path),
        })
    }

    fn bucket(url: &Url, env: &impl Env) -> Result<Self, String> {
        let bucket = url.host_str().filter(|name| !name.is_empty());
        let bucket = bucket.ok_or("expected a bucket: s3://bucket/prefix")?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(
                "an address without credentials is expected: they are taken from AWS_ACCESS_KEY_ID and its like".into(),
            );
        }
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
        for name in AWS_SETTINGS {
            if let Some(value) = env.get(name) {
                let key: AmazonS3ConfigKey = name
                    .to_lowercase()
                    .parse()
                    .map_err(|_unknown| format!("{name} is not known to the client"))?;
                builder = builder.with_config(key, value);
            }
        }
        // Whoever writes http means it.
        let endpoint = env
            .get("AWS_ENDPOINT_URL_S3")
            .or_else(|| env.get("AWS_ENDPOINT_URL"));
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 5,
            retry_timeout: RETRY_DEADLINE,
        };
        let options = ClientOptions::new()
            .with_allow_http(plain)
            .with_connect_timeout(RETRY_DEADLINE / 2)
            .with_timeout(REQUEST_DEADLINE);
        let client = builder
            // One by one: not every store takes lists, and few objects go at once.
            .with_disable_bulk_delete(true)
            .with_client_options(options)
            .with_retry(retry)
            .build()
            .map_err(|error| error.to_string())?;
        let prefix = Path::from_url_path(url.path()).map_err(|error| error.to_string())?;
        let client = Arc::new(PrefixStore::new(client, prefix));
        let objects: Arc<dyn ObjectStore> = Arc::<PrefixStore<AmazonS3>>::clone(&client);
        Ok(Self {
            address: url.to_string(),
            objects,
            kind: Kind::Bucket(client),
        })
    }

    /// Asks whether it is there: lists at most one name.
    ///
    /// # Errors
    /// [`ArchiveStoreError`] says what it answered.
    pub async fn ping(&self) -> Result<(), ArchiveStoreError> {
        if let Kind::Folder(path) = &self.kind {
            let there = tokio::fs::metadata(path).await;
            return there.map(drop).map_err(|error| self.unreachable(&error));
        }
        match self.objects.list(None).next().await {
            Some(Err(error)) => Err(self.unreachable(&error)),
            _ => Ok(()),
        }
    }

    /// A range of an object.
    ///
    /// # Errors
    /// [`ArchiveStoreError`]; a range beyond the end of the object is answered by what there is of it.
    pub async fn range(&self, object: &str, range: Range<u64>) -> Result<Bytes, ArchiveStoreError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let got = async {
            let got = self.objects.get_opts(&Path::from(object), options).await?;
            got.bytes().await
        };
        match got.await {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(self.failed(object, &error)),
        }
    }

    /// The length of an object in bytes.
    ///
    /// # Errors
    /// [`ArchiveStoreError`].
    pub async fn length(&self, object: &str) -> Result<u64, ArchiveStoreError> {
        let meta = self.objects.head(&Path::from(object)).await;
        meta.map(|meta| meta.size)
            .map_err(|error| self.failed(object, &error))
    }

    /// Removes an object, an upload of it that was broken off, and what that left behind. It may be gone
    /// already.
    ///
    /// # Errors
    /// [`ArchiveStoreError`]; it can be called again.
    pub async fn remove(
        &self,
        object: &str,
        upload: Option<&str>,
    ) -> Result<(), ArchiveStoreError> {
        let path = Path::from(object);
        match &self.kind {
            Kind::Folder(folder) => self.remove_staged(folder, object).await?,
            Kind::Bucket(client) => {
                if let Some(id) = upload {
                    match client.abort_multipart(&path, &id.to_owned()).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(self.unreachable(&error)),
                    }
                }
            }
        }
        match self.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    /// In a folder an object that is being written has its name and a suffix.
    async fn remove_staged(
        &self,
        folder: &std::path::Path,
        object: &str,
    ) -> Result<(), ArchiveStoreError> {
        let path = folder.join(object);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        // The place itself must be there: a disk that is not mounted holds nothing, and proves nothing.
        self.ping().await?;
        let removed = async {
            let mut entries = match tokio::fs::read_dir(parent).await {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            while let Some(entry) = entries.next_entry().await? {
                let found = entry.file_name();
                let suffix = found
                    .as_encoded_bytes()
                    .strip_prefix(name.as_encoded_bytes());
                if suffix.is_some_and(|suffix| suffix.starts_with(b"#")) {
                    match tokio::fs::remove_file(entry.path()).await {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(error);
                        }
                        _ => {}
                    }
                }
            }
            match tokio::fs::remove_dir(parent).await {
                // Something else is in it, or it is gone.
                Ok(()) | Err(_) => Ok(()),
            }
        };
        let removed: std::io::Result<()> = removed.await;
        removed.map_err(|error| self.unreachable(&error))
    }

    pub(super) fn failed(&self, object: &str, error: &object_store::Error) -> ArchiveStoreError {
        let away = matches!(&self.kind, Kind::Folder(path) if !path.is_dir());
        match error {
            object_store::Error::NotFound { .. } if away => {
                self.unreachable(&"the folder is not there")
            }
            object_store::Error::NotFound { .. } => ArchiveStoreError::Missing {
                place: self.address.clone(),
                object: object.to_owned(),
            },
            error => self.unreachable(error),
        }
    }

    fn unreachable(&self, error: &dyn fmt::Display) -> ArchiveStoreError {
        ArchiveStoreError::Unreachable {
            place: self.address.clone(),
            reason: error.to_string(),
        }
    }
}
