//! Why a cycle of the persister failed.

use runcast_common::connect::RedisFailure;
use runcast_common::protocol::entry::NotEntries;
use runcast_store::StoreError;

/// What a cycle can fail with.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// Redis answered a stream read in another shape.
    #[error(transparent)]
    NotEntries(#[from] NotEntries),
}

impl PersistError {
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Redis(error) => error.is_outage(),
            Self::NotEntries(_) => false,
        }
    }
}
