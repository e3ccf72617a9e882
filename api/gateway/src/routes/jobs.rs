//! `/v1/jobs`: how background work stands, for administrators, and what can be done about a job that is dead.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::job_status::{DeadJob, JobKind, LeaseRow};

/// Dead jobs of one page if nothing is said, and at most.
const PAGE_JOBS: u16 = 50;
const MAX_PAGE_JOBS: u16 = 200;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(drop_one))
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

/// Tells how background work stands, and lists dead jobs.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    params(
        ("after" = Option<i64>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "Dead jobs: 50, and 200 at most"),
    ),
    responses((status = 200, description = "Everything, with a page of dead jobs", body = Jobs)),
    security(("bearer" = [Scope::Admin]))
)]
async fn list(State(gateway): State<Gateway>, query: Query) -> Result<Json<Jobs>, Problem> {
    let limit = query.limit(PAGE_JOBS, MAX_PAGE_JOBS)?;
    let after = query.parse("after")?.unwrap_or(0);
    // One more than asked for says whether there is a next page.
    let mut dead = gateway.store().dead_jobs(after, limit + 1).await?;
    let more = dead.len() > usize::from(limit);
    dead.truncate(usize::from(limit));
    Ok(Json(Jobs {
        kinds: gateway.store().job_kinds().await?,
        leases: gateway.store().lease_rows().await?,
        next: dead.last().map(|last| last.id).filter(|_| more),
        dead,
    }))
}

/// Starts a dead job again.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job}/retry",
    responses((status = 204, description = "It will be tried")),
    security(("bearer" = [Scope::Admin]))
)]
async fn retry(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let job = number(&id)?;
    done(job, gateway.store().retry_job(job).await?)
}

/// Drops a job that does not run at the moment.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{job}",
    responses((status = 204, description = "It is gone")),
    security(("bearer" = [Scope::Admin]))
)]
async fn drop_one(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let job = number(&id)?;
    done(job, gateway.store().drop_job(job).await?)
}

fn number(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_no_number| {
        let shown: String = text.chars().take(64).collect();
        Problem::new(StatusCode::NOT_FOUND, format!("there is no job {shown}"))
    })
}

fn done(job: i64, found: bool) -> Result<StatusCode, Problem> {
    if found {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("there is no job {job}, or it runs at this moment");
    Err(Problem::new(StatusCode::NOT_FOUND, detail))
}
