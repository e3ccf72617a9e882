//! `/v1/jobs`: the state of background work, and retrying or dropping dead jobs; for
//! administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::page::PageSize;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::job_status::{DeadJob, JobKind, LeaseRow};

/// Pages of dead jobs.
const PAGE_JOBS: PageSize = PageSize {
    default: 50,
    max: 200,
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(drop_job))
        .routes(routes!(retry))
}

#[derive(Debug, Serialize, ToSchema)]
struct Jobs {
    kinds: Vec<JobKind>,
    leases: Vec<LeaseRow>,
    dead: Vec<DeadJob>,
    /// The `after` of the next page of dead jobs.
    next: Option<i64>,
}

/// Returns the state of background work, and lists dead jobs.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    params(
        ("after" = Option<i64>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "Dead jobs: 50, and 200 at most"),
    ),
    responses((status = 200, description = "The state, with a page of dead jobs", body = Jobs)),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(State(gateway): State<Gateway>, query: Query) -> Result<Json<Jobs>, Problem> {
    let page = PAGE_JOBS.limit(&query)?;
    let after = query.parse("after")?.unwrap_or(0);
    let mut dead = gateway
        .store()
        .dead_jobs(after, page.rows_to_read())
        .await?;
    let next = page.cut(&mut dead, |job| job.id);
    Ok(Json(Jobs {
        kinds: gateway.store().job_kinds().await?,
        leases: gateway.store().lease_rows().await?,
        dead,
        next,
    }))
}

/// Retries a dead job.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job}/retry",
    responses((status = 204, description = "A worker will run it")),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn retry(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let job = job_id(&id)?;
    let actor = principal.actor();
    found(job, gateway.store().retry_job(&actor, job).await?)
}

/// Drops a job that is not running.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{job}",
    responses((status = 204, description = "It is dropped")),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn drop_job(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let job = job_id(&id)?;
    let actor = principal.actor();
    found(job, gateway.store().drop_job(&actor, job).await?)
}

fn job_id(text: &str) -> Result<i64, Problem> {
    let id = text.parse();
    id.map_err(|_no_number| Problem::not_found("job", text))
}

fn found(job: i64, found: bool) -> Result<StatusCode, Problem> {
    if found {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("there is no job {job}, or it is running");
    Err(Problem::new(StatusCode::NOT_FOUND, detail))
}
