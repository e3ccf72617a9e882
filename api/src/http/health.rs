//! `/healthz` (the process answers) and `/readyz` (it can do its work: [`crate::health`]).
//!
//! A gateway without Redis or without Postgres still serves its viewers, so readiness goes off only
//! when neither answers, or when the server drains; what is missing is said in any case.

use axum::Router;
use axum::extract::State;
use axum::routing::get;

use super::Gateway;
use crate::health::Readiness;

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
}

async fn ready(State(gateway): State<Gateway>) -> Readiness {
    let findings = gateway.health().look().await;
    let draining = gateway.is_draining();
    Readiness {
        ready: !draining && (findings.redis.is_ok() || findings.postgres.is_ok()),
        draining,
        watched_runs: Some(gateway.hub().watched()),
        access: Some(gateway.access().told()),
        findings,
    }
}
