//! Starts the persister.

use prometheus_client::registry::Registry;
use runcast_common::scripts::LiveWindow;
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
        let metrics = Metrics::default();
        metrics.register(registry);
        let persister = Persister::new(
            self.redis.clone(),
            self.store.clone(),
            self.settings.keys.clone(),
            LiveWindow::default(),
            self.settings.redis_budget,
            metrics,
        );
        let stop = stop.clone();
        tasks.spawn(async move {
            persister.run(stop).await;
            Ok("persister")
        });
    }
}
