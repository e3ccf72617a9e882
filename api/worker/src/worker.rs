//! What all background work uses: connections, settings, and the deliverer of webhooks.

use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use runcast_store::Store;
use runcast_webhooks::delivery::Deliverer;

use crate::metrics::Metrics;
use crate::settings::WorkerSettings;

/// Does background work. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Worker {
    pub(crate) store: Store,
    pub(crate) redis: Redis,
    pub(crate) keys: Keys,
    pub(crate) settings: WorkerSettings,
    pub(crate) webhooks: Deliverer,
    pub(crate) metrics: Metrics,
}

impl Worker {
    /// A worker for this Redis and this Postgres.
    pub const fn new(
        store: Store,
        redis: Redis,
        keys: Keys,
        settings: WorkerSettings,
        webhooks: Deliverer,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            redis,
            keys,
            settings,
            webhooks,
            metrics,
        }
    }
}
