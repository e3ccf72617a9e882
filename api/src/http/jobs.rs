//! `/v1/jobs`: how background work stands, for administrators, and what can be done about a job that is dead.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Serialize;

use super::Gateway;
use super::problem::Problem;
use super::query::Query;
use crate::access::Scope;
use crate::access::principal::Principal;
use crate::store::jobs::{DeadJob, Kind, LeaseRow};

/// Dead jobs of one page if nothing is said, and at most.
const PAGE_JOBS: u16 = 50;
const MAX_PAGE_JOBS: u16 = 200;

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/v1/jobs", get(list))
        .route("/v1/jobs/{job}", delete(drop_one))
        .route("/v1/jobs/{job}/retry", post(retry))
}

#[derive(Debug, Serialize)]
struct Jobs {
    kinds: Vec<Kind>,
    leases: Vec<LeaseRow>,
    dead: Vec<DeadJob>,
    /// The `after` of the next page of dead jobs.
    next: Option<i64>,
}

/// Everything at once; dead jobs in pages: `?after=` the `next` of the page before, `?limit=`.
async fn list(
    principal: Principal,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<Jobs>, Problem> {
    principal.may(Scope::Admin, None)?;
    let limit = query
        .parse("limit")?
        .unwrap_or(PAGE_JOBS)
        .clamp(1, MAX_PAGE_JOBS);
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

async fn retry(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    principal.may(Scope::Admin, None)?;
    let job = number(&id)?;
    done(job, gateway.store().retry_job(job).await?)
}

async fn drop_one(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    principal.may(Scope::Admin, None)?;
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
