//! `/healthz` (the process answers) and `/readyz` (it can do its work: [`crate::readiness`]).
//!
//! A gateway without Redis or without Postgres still serves its viewers, so it is unready only when
//! neither answers, or while it drains. The answer names what is missing in any case.

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

/// Says that the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "The process answers", body = String)),
    security(()),
    extensions(("x-rate-class" = json!("uncounted")))
)]
async fn healthy() -> &'static str {
    "ok\n"
}

/// Says whether the gateway can do its work, and what is missing.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "The gateway can do its work", body = Readiness),
        (status = 503, description = "It cannot, or is shutting down", body = Readiness),
    ),
    security(()),
    extensions(("x-rate-class" = json!("uncounted")))
)]
async fn ready(State(gateway): State<Gateway>) -> Readiness {
    let findings = gateway.health().look().await;
    let draining = gateway.is_draining();
    Readiness {
        ready: !draining && (findings.redis.is_ok() || findings.postgres.is_ok()),
        draining,
        watched_runs: Some(gateway.hub().watched_runs()),
        limits: Some(gateway.limits().source().name()),
        access: Some(gateway.access().health()),
        findings,
    }
}
