//! Starts the worker, and the delivery of webhooks, which is part of it.

use prometheus_client::registry::Registry;
use runcast_history::archive::metrics::Metrics as ArchiveMetrics;
use runcast_webhooks::delivery::Deliverer;
use runcast_webhooks::metrics::Metrics as WebhookMetrics;
use runcast_worker::Worker;
use runcast_worker::metrics::Metrics;
use runcast_worker::settings::{ArchiveSettings, WorkerSettings};
use tokio_util::sync::CancellationToken;

use super::process::{App, Tasks};

impl App {
    pub(super) fn start_worker(
        &self,
        tasks: &mut Tasks,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) {
        let settings = &self.settings;
        let archive = ArchiveSettings {
            place: settings.archive.clone(),
            after: settings.archive_after,
            meter: ArchiveMetrics::default(),
        };
        archive.meter.register_writing(registry);
        let metrics = Metrics::default();
        metrics.register(registry);
        let webhook_metrics = WebhookMetrics::default();
        webhook_metrics.register(registry);
        let webhooks = Deliverer::new(
            self.store.clone(),
            settings.webhooks.clone(),
            webhook_metrics,
        );
        let worker = Worker::new(
            self.store.clone(),
            self.redis.clone(),
            settings.keys.clone(),
            WorkerSettings {
                retention: settings.retention.clone(),
                archiving: archive,
                silence: settings.liveness,
            },
            webhooks,
            metrics,
        );
        let stop = stop.clone();
        tasks.spawn(async move {
            worker.run(stop).await;
            Ok("worker")
        });
    }
}
