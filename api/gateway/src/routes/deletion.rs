//! `DELETE /v1/runs/{run}` and `/v1/runs/{run}/hold`: deletes a run, and holds runs against
//! deletion.
//!
//! A run that is deleted is gone at once for readers and publishers: its row is deleted before the
//! answer, its open streams end with `end` and the status `deleted`, and its agents are refused.
//! What is stored of it is removed by a worker; a repeated request answers 200 once that is done. A
//! run on hold is answered 409.
//!
//! Bounds: a reason of [`MAX_REASON_BYTES`](crate::extract::reason::MAX_REASON_BYTES). Time:
//! [`REDIS_DEADLINE`] for what this process does in Redis; without it the worker does it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use runcast_common::run_deletion;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{info, warn};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::run_access::{check_run_access, no_run};
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::extract::path::path_id;
use crate::extract::reason::checked_reason;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::deletion::{DeletedRun, Deletion};

/// Longest wait for Redis to forget the run and to tell viewers.
const REDIS_DEADLINE: Duration = Duration::from_secs(2);

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(delete))
        .routes(routes!(hold, release))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewHold)]
#[serde(deny_unknown_fields)]
struct NewHold {
    /// Why the run must be kept, such as the number of a case.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
}

/// Deletes a run with all that is stored of it.
///
/// It is gone for readers and publishers at once; a worker removes its events, archived copies and
/// keys. A repeated request answers 200 when nothing is left.
#[utoipa::path(
    delete,
    path = "/v1/runs/{run}",
    responses(
        (status = 202, description = "It is deleted, and a worker removes the rest", body = DeletedRun),
        (status = 200, description = "It was deleted, and nothing is left of it", body = DeletedRun),
        (status = 409, description = "The run is on hold"),
    ),
    security(("bearer" = [Scope::Delete])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn delete(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<DeletedRun>), Problem> {
    let run = path_id("run", &id)?;
    check_run_access(&gateway, &principal, Scope::Delete, run).await?;
    let deleted = match gateway.store().delete_run(&principal.actor(), run).await? {
        Deletion::Deleted(deleted) => deleted,
        Deletion::Held(hold) => {
            let detail = format!("run {run} is on hold by {}: {}", hold.by, hold.reason);
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Deletion::Unknown => return Err(Problem::not_found("run", &id)),
    };
    if deleted.removed_at.is_some() {
        return Ok((StatusCode::OK, Json(deleted)));
    }
    info!(%run, by = %principal.id, "a run was deleted");
    forget(&gateway, &deleted).await;
    Ok((StatusCode::ACCEPTED, Json(deleted)))
}

/// Removes the run from Redis, and tells its viewers and agents. Where that fails the worker does
/// it.
async fn forget(gateway: &Gateway, deleted: &DeletedRun) {
    let (redis, keys, run) = (gateway.redis(), gateway.keys(), deleted.run_id);
    let forgotten = async {
        run_deletion::remove_keys(redis, keys, run, &[], &deleted.agents).await?;
        run_deletion::announce(redis, keys, run).await
    };
    match timeout(REDIS_DEADLINE, forgotten).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(%run, %error, "cannot remove a deleted run from Redis; a worker does it");
        }
        Err(_elapsed) => {
            warn!(%run, "Redis took too long to forget a deleted run; a worker does it");
        }
    }
}

/// Puts a run on hold: neither retention nor a request deletes it.
///
/// A second request gives another reason.
#[utoipa::path(
    put,
    path = "/v1/runs/{run}/hold",
    request_body = NewHold,
    responses((status = 204, description = "The run is on hold")),
    security(("bearer" = [Scope::Delete])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn hold(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    StrictJson(body): StrictJson<NewHold>,
) -> Result<StatusCode, Problem> {
    let run = path_id("run", &id)?;
    check_run_access(&gateway, &principal, Scope::Delete, run).await?;
    let reason = checked_reason(&body.reason)?;
    if reason.is_empty() {
        return Err(Problem::bad_request("reason: say why the run is kept"));
    }
    let store = gateway.store();
    let held = store.hold_run(&principal.actor(), run, reason).await?;
    found(&gateway, run, held).await
}

/// Ends the hold of a run, if it has one.
#[utoipa::path(
    delete,
    path = "/v1/runs/{run}/hold",
    responses((status = 204, description = "The run is not on hold")),
    security(("bearer" = [Scope::Delete])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn release(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let run = path_id("run", &id)?;
    check_run_access(&gateway, &principal, Scope::Delete, run).await?;
    let store = gateway.store();
    let released = store.release_run(&principal.actor(), run).await?;
    found(&gateway, run, released).await
}

async fn found(gateway: &Gateway, run: Uuid, found: bool) -> Result<StatusCode, Problem> {
    match found {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_run(gateway, run).await),
    }
}
