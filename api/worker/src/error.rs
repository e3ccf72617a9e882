//! Why background work failed.

use runcast_common::connect::RedisFailure;
use runcast_history::archive::object_store::ArchiveStoreError;
use runcast_history::archive::reader::ArchiveReadError;
use runcast_history::archive::writer::WriteError;
use runcast_store::StoreError;
use runcast_store::schema::SchemaError;
use runcast_webhooks::delivery::DeliveryError;
use uuid::Uuid;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// Postgres failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is not one that this program can work with.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Redis failed.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// The object store of the archive failed.
    #[error("the archive at {0}")]
    ArchiveStore(#[from] ArchiveStoreError),
    /// A run could not be archived.
    #[error(transparent)]
    Archive(#[from] WriteError),
    /// Events that are to be redacted are not stored yet.
    #[error("events of run {0} that are to be redacted are not stored yet; it will be tried again")]
    NotStored(Uuid),
    /// Stored events cannot be read.
    #[error(transparent)]
    Archived(#[from] ArchiveReadError),
    /// The job library failed.
    #[error("the queue of background tasks: {0}")]
    Queue(String),
    /// Webhooks could not be delivered.
    #[error(transparent)]
    Webhooks(#[from] DeliveryError),
}
