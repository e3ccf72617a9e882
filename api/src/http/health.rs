//! `/healthz` (the process answers) and `/readyz` (it can do its work).
//!
//! A gateway without Redis or without Postgres still serves its viewers, so readiness goes off only
//! when neither answers, or when the server drains; what is missing is said in any case.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use futures::future::try_join_all;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::redis;
use serde::Serialize;

use super::{Gateway, within};

/// Longest wait for each of the two servers: a probe is asked every few seconds.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    draining: bool,
    redis: &'static str,
    postgres: &'static str,
    watched_runs: usize,
}

/// Asks every master.
async fn ping(redis: &Redis) -> Result<(), RedisFailure> {
    let ping = redis::cmd("PING");
    let masters = redis.masters().await?;
    let asking = masters.iter().map(|server| server.query::<String>(&ping));
    try_join_all(asking).await.map(|_pongs| ())
}

async fn ready(State(gateway): State<Gateway>) -> (StatusCode, Json<Readiness>) {
    let (redis, postgres) = tokio::join!(
        within(PROBE_DEADLINE, ping(gateway.redis())),
        within(PROBE_DEADLINE, gateway.store().has_partitions()),
    );
    let redis = match redis {
        Some(Ok(_)) => "ok",
        Some(Err(_)) | None => "unreachable",
    };
    let postgres = match postgres {
        Some(Ok(true)) => "ok",
        Some(Ok(false)) => "no partition for the events of today or tomorrow: is a worker running?",
        Some(Err(_)) | None => "unreachable",
    };
    let draining = gateway.is_draining();
    let ready = !draining && (redis == "ok" || postgres == "ok");
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let readiness = Readiness {
        ready,
        draining,
        redis,
        postgres,
        watched_runs: gateway.hub().watched(),
    };
    (status, Json(readiness))
}
