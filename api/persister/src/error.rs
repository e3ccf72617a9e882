//! Why a cycle of the persister failed, and whether a retry can help.

use runcast_common::connect::RedisFailure;
use runcast_store::{Outage, StoreError};

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
        self.outage().is_some()
    }

    /// Which server does no work, and why, as metrics name it; none if the run alone is at fault.
    pub(crate) fn outage(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.outage().map(Outage::name),
            Self::Redis(error) => error.outage(),
        }
    }

    /// All values of [`PersistError::outage`].
    pub(crate) fn outages() -> impl Iterator<Item = &'static str> {
        let postgres = Outage::ALL.into_iter().map(Outage::name);
        postgres.chain(RedisFailure::OUTAGES)
    }
}
