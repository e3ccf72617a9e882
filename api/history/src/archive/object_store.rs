//! Where archived runs lie: a folder, or a bucket of S3 or of a store with the same protocol.
//!
//! An object keeps its name and is written by one attempt ([`super::upload`]), so nothing is ever
//! overwritten. Only the owner of an object's row in Postgres deletes it, together with what an
//! unfinished upload left.
//!
//! Time: every request has a deadline, [`REQUEST_DEADLINE`], and is retried for [`RETRY_DEADLINE`]
//! at most.

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
    BackoffConfig, Certificate, ClientOptions, GetOptions, GetRange, ObjectStore,
    ObjectStoreExt as _, RetryConfig,
};
use runcast_common::config::{ConfigError, Env};
use runcast_common::connect::Authorities;
use url::Url;
use uuid::Uuid;

use runcast_store::archives::day_of;

/// The setting that names the archive store.
pub const ARCHIVE_SETTING: &str = "RUNCAST_ARCHIVE";

/// The longest wait for one request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// How long a failed request is retried.
const RETRY_DEADLINE: Duration = Duration::from_secs(10);

/// Settings of AWS that are passed to the client: credentials, the address of the bucket,
/// encryption.
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

/// Why a request to the archive store failed. The texts name the store, never a credential.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveStoreError {
    /// The object does not exist.
    #[error("{store} does not hold {object}")]
    Missing {
        /// The store.
        store: String,
        /// The name of the object.
        object: String,
    },
    /// The store does not answer, or refuses.
    #[error("{store} cannot be used: {reason}")]
    Unreachable {
        /// The store.
        store: String,
        /// What it answered, or what failed on the way.
        reason: String,
    },
}

/// A store of archive objects. Cloning is cheap.
#[derive(Clone)]
pub struct ArchiveStore {
    /// For errors and logs; holds no credential.
    address: String,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) backend: Backend,
}

/// The kind of store.
#[derive(Clone)]
pub(super) enum Backend {
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

/// The name of an object: the day on which its run was created, the run, the attempt.
pub fn object_name(run: Uuid, id: Uuid) -> String {
    let day = day_of(run).format("%Y/%m/%d");
    format!("{day}/{run}/{id}.ndjson.zst")
}

impl ArchiveStore {
    /// The store that [`ARCHIVE_SETTING`] names, if it is set. A folder must exist: one that is
    /// created in place of a disk that is not mounted would look as if all runs were lost.
    pub fn from_env(env: &impl Env) -> Result<Option<Self>, ConfigError> {
        let Some(text) = env.get(ARCHIVE_SETTING) else {
            return Ok(None);
        };
        let store = match Url::parse(&text) {
            Ok(url) if url.scheme() == "file" => Self::folder(&url),
            Ok(url) if url.scheme() == "s3" => Self::bucket(&url, env),
            _ => Err("expected file:///folder or s3://bucket/prefix".to_owned()),
        };
        let invalid = |reason| ConfigError::Invalid {
            name: ARCHIVE_SETTING,
            reason,
        };
        store.map(Some).map_err(invalid)
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
            backend: Backend::Folder(path),
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
        // An endpoint with `http` is meant that way.
        let endpoint = env
            .get("AWS_ENDPOINT_URL_S3")
            .or_else(|| env.get("AWS_ENDPOINT_URL"));
        let is_http = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 5,
            retry_timeout: RETRY_DEADLINE,
        };
        let mut options = ClientOptions::new()
            .with_allow_http(is_http)
            .with_connect_timeout(RETRY_DEADLINE / 2)
            .with_timeout(REQUEST_DEADLINE);
        // By itself the client fails on a machine without authorities, also for `http`.
        match Authorities::load() {
            Ok(authorities) if authorities.are_bundled() => {
                let bundled = authorities.certificates().flat_map(Certificate::from_der);
                options = bundled.fold(options, ClientOptions::with_root_certificate);
            }
            Ok(_of_the_platform) => {}
            Err(error) => return Err(error.to_string()),
        }
        let client = builder
            // One by one: not every store accepts lists, and few objects are deleted at once.
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
            backend: Backend::Bucket(client),
        })
    }

    /// Checks that the store can be reached; lists at most one name.
    pub async fn ping(&self) -> Result<(), ArchiveStoreError> {
        if let Backend::Folder(path) = &self.backend {
            let there = tokio::fs::metadata(path).await;
            return there
                .map(drop)
                .map_err(|error| self.unreachable_error(&error));
        }
        match self.objects.list(None).next().await {
            Some(Err(error)) => Err(self.unreachable_error(&error)),
            _ => Ok(()),
        }
    }

    /// Reads a range of an object. Where the range exceeds the object, returns what there is of it.
    pub async fn get_range(
        &self,
        object: &str,
        range: Range<u64>,
    ) -> Result<Bytes, ArchiveStoreError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let response = async {
            let object = self.objects.get_opts(&Path::from(object), options).await?;
            object.bytes().await
        };
        match response.await {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(self.object_error(object, &error)),
        }
    }

    /// The length of an object in bytes.
    pub async fn length(&self, object: &str) -> Result<u64, ArchiveStoreError> {
        let meta = self.objects.head(&Path::from(object)).await;
        meta.map(|meta| meta.size)
            .map_err(|error| self.object_error(object, &error))
    }

    /// Deletes an object, its unfinished upload, and what that left behind. It may be gone already,
    /// and the call may be repeated after an error.
    pub async fn remove(
        &self,
        object: &str,
        upload: Option<&str>,
    ) -> Result<(), ArchiveStoreError> {
        let path = Path::from(object);
        match &self.backend {
            Backend::Folder(folder) => self.remove_unfinished(folder, object).await?,
            Backend::Bucket(client) => {
                if let Some(id) = upload {
                    match client.abort_multipart(&path, &id.to_owned()).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(self.unreachable_error(&error)),
                    }
                }
            }
        }
        match self.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.unreachable_error(&error)),
        }
    }

    /// In a folder, an object that is being written has its name and a suffix.
    async fn remove_unfinished(
        &self,
        folder: &std::path::Path,
        object: &str,
    ) -> Result<(), ArchiveStoreError> {
        let path = folder.join(object);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        // The folder itself must exist: a disk that is not mounted holds nothing, and proves
        // nothing.
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
                // Another file is in it, or it is gone.
                Ok(()) | Err(_) => Ok(()),
            }
        };
        let removed: std::io::Result<()> = removed.await;
        removed.map_err(|error| self.unreachable_error(&error))
    }

    pub(super) fn object_error(
        &self,
        object: &str,
        error: &object_store::Error,
    ) -> ArchiveStoreError {
        let is_gone = matches!(&self.backend, Backend::Folder(path) if !path.is_dir());
        match error {
            object_store::Error::NotFound { .. } if is_gone => {
                self.unreachable_error(&"the folder is not there")
            }
            object_store::Error::NotFound { .. } => ArchiveStoreError::Missing {
                store: self.address.clone(),
                object: object.to_owned(),
            },
            error => self.unreachable_error(error),
        }
    }

    fn unreachable_error(&self, error: &dyn fmt::Display) -> ArchiveStoreError {
        ArchiveStoreError::Unreachable {
            store: self.address.clone(),
            reason: error.to_string(),
        }
    }
}
