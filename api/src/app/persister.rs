//! Starts the persister.

use prometheus_client::registry::Registry;
use runcast_common::scripts::Window;
use runcast_persister::Persister;
use runcast_persister::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use super::process::{App, Tasks};

impl App {
    pub(super) fn start_persister(
        &self,
        tasks: &mut Tasks,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) {
        let (redis, store) = (self.redis.clone(), self.store.clone());
        let keys = self.settings.keys.clone();
        let meter = Metrics::default();
        meter.register(registry);
        let budget = self.settings.redis_budget;
        let persister = Persister::new(redis, store, keys, Window::default(), budget, meter);
        let stop = stop.clone();
        tasks.spawn(async move {
            persister.run(stop).await;
            Ok("persister")
        });
    }
}
