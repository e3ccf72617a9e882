//! Why a cycle of the persister failed, and whether a retry can help.

use runcast_common::connect::RedisFailure;
use runcast_store::StoreError;

/// Why a cycle failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PersistError {
    /// Postgres failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis failed.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
}

impl PersistError {
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_outage(),
            Self::Redis(error) => error.is_outage(),
        }
    }
}
