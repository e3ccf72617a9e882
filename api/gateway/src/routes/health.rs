//! `/healthz` (the process answers) and `/readyz` (it can do its work: [`crate::readiness`]).
//!
//! A gateway without Redis or without Postgres still serves its viewers, so readiness goes off only
//! when neither answers, or when the server drains; what is missing is said in any case.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::readiness::Readiness;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(healthy))
        .routes(routes!(ready))
}

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "It does", body = String)),
    security(())
)]
async fn healthy() -> &'static str {
    "ok\n"
}

/// Whether the gateway can do its work, and what is missing.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot, or is being stopped", body = Readiness),
    ),
    security(())
)]
async fn ready(State(gateway): State<Gateway>) -> Readiness {
    let findings = gateway.health().look().await;
    let draining = gateway.is_draining();
    Readiness {
        ready: !draining && (findings.redis.is_ok() || findings.postgres.is_ok()),
        draining,
        watched_runs: Some(gateway.hub().watched()),
        limits: Some(gateway.limits().source().name()),
        access: Some(gateway.access().told()),
        findings,
    }
}
