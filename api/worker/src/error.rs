//! Why background work failed.

use runcast_common::connect::RedisFailure;
use runcast_history::archive::object_store::ArchiveStoreError;
use runcast_history::archive::writer::WriteError;
use runcast_store::StoreError;
use runcast_webhooks::delivery::DeliveryError;

/// What a task can fail with.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// The place of the archive.
    #[error("the archive at {0}")]
    Place(#[from] ArchiveStoreError),
    /// A run could not be archived.
    #[error(transparent)]
    Archive(#[from] WriteError),
    /// The job library.
    #[error("the queue of background tasks: {0}")]
    Queue(String),
    /// Webhooks.
    #[error(transparent)]
    Webhooks(#[from] DeliveryError),
}
