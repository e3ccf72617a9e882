//! `/metrics`: what the services of this process count, in the text format of Prometheus.
//!
//! It has a listener of its own, so that clients of the gateway need not see it. `/healthz` and
//! `/readyz` are served beside it, for services that have no other listener.
//!
//! There is no process-wide registry: each service registers its metrics in the one it is given.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use runcast_common::connect::Redis;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::error;

use runcast_gateway::readiness::{Health, Readiness};
use runcast_store::Store;

/// Longest time that a scrape may still take when the process stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// OpenMetrics, which Prometheus reads as well as its own text format.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry with one metric: the version, and the services of the process.
pub fn registry(services: &str) -> Registry {
    let mut registry = Registry::default();
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("services", services.to_owned()),
    ];
    registry.register("runcast_build", "What runs here", Info::new(labels));
    registry
}

/// Registers the metrics of the two servers, which every service has.
pub fn servers(registry: &mut Registry, redis: &Redis, store: &Store) {
    registry.register_collector(Box::new(ServerCollector {
        redis: redis.clone(),
        store: store.clone(),
    }));
}

/// Read at each scrape.
#[derive(Debug)]
struct ServerCollector {
    redis: Redis,
    store: Store,
}

impl Collector for ServerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let healthy = ConstGauge::new(i64::from(self.redis.is_healthy()));
        let help = "1 if Redis answered the last call of this process";
        let metric = encoder.encode_descriptor(
            "runcast_redis_healthy",
            help,
            None,
            healthy.metric_type(),
        )?;
        healthy.encode(metric)?;
        let connections = ConstGauge::new(i64::from(self.store.connections()));
        let help = "Open connections of this process to Postgres";
        let metric = encoder.encode_descriptor(
            "runcast_postgres_connections",
            help,
            None,
            connections.metric_type(),
        )?;
        connections.encode(metric)
    }
}

/// `/healthz` and `/readyz` beside `/metrics`; `persister` says whether the process runs one.
pub fn health_routes(health: Health, persister: bool, stop: CancellationToken) -> Router {
    let health = Arc::new(health);
    let ready = get(async move || {
        let findings = health.look().await;
        let draining = stop.is_cancelled();
        Readiness {
            ready: !draining && findings.is_healthy(persister),
            draining,
            watched_runs: None,
            limits: None,
            access: None,
            findings,
        }
    });
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", ready)
}

/// Serves `/metrics` and the routes of `health` until `stop`.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    health: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let registry = Arc::new(registry);
    let scrape = get(async move || answer(&registry));
    let router = health.route("/metrics", scrape);
    let stopped = stop.clone();
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .into_future();
    let late = async {
        stopped.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        served = serving => served,
        () = late => Ok(()),
    }
}

fn answer(registry: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(failed) => {
            error!(error = %failed, "cannot encode metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
