//! `/metrics`: what the services of this process count, in the text format of Prometheus, on a listener
//! of its own, so that it need not be shown to whom the gateway is. Beside it the health checks, for services that
//! have no other listener.
//!
//! There is no process-wide registry: each service registers what it counts in the one it is given.

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

/// How long a scrape that has begun may still take when the process stops.
const DRAIN: Duration = Duration::from_secs(2);

/// The text format that OpenMetrics made of that of Prometheus, which reads both.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry that tells the version, and which services the process runs.
#[must_use]
pub fn registry(services: &str) -> Registry {
    let mut registry = Registry::default();
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("services", services.to_owned()),
    ];
    registry.register("runcast_build", "What runs here", Info::new(labels));
    registry
}

/// Registers what every service can tell of the two servers.
pub fn servers(registry: &mut Registry, redis: &Redis, store: &Store) {
    registry.register_collector(Box::new(Servers {
        redis: redis.clone(),
        store: store.clone(),
    }));
}

/// Looked up when it is asked for.
#[derive(Debug)]
struct Servers {
    redis: Redis,
    store: Store,
}

impl Collector for Servers {
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

/// `/healthz` and `/readyz` of services that have no other listener; `persister` if one of them is.
pub fn health_routes(health: Health, persister: bool, stop: CancellationToken) -> Router {
    let health = Arc::new(health);
    let ready = get(async move || {
        let findings = health.look().await;
        let draining = stop.is_cancelled();
        Readiness {
            ready: !draining && findings.all_well(persister),
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

/// Answers scrapes, and what `health` does, until told to stop.
///
/// # Errors
/// If the listener fails.
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
        tokio::time::sleep(DRAIN).await;
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
            error!(error = %failed, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
