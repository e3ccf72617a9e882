//! What every background task works with.

use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use runcast_store::Store;
use runcast_webhooks::delivery::Deliverer;

use crate::metrics::Metrics;
use crate::settings::WorkerSettings;

/// What every task works with. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Worker {
    pub(crate) store: Store,
    pub(crate) redis: Redis,
    pub(crate) keys: Keys,
    pub(crate) rules: WorkerSettings,
    pub(crate) webhooks: Deliverer,
    pub(crate) meter: Metrics,
}

impl Worker {
    /// A worker between this Redis and this Postgres.
    #[must_use]
    pub const fn new(
        store: Store,
        redis: Redis,
        keys: Keys,
        rules: WorkerSettings,
        webhooks: Deliverer,
        meter: Metrics,
    ) -> Self {
        Self {
            store,
            redis,
            keys,
            rules,
            webhooks,
            meter,
        }
    }
}
