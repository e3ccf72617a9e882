//! `/v1/runs/{run}/agents`: the processes that publish for a run, and whether they live.
//!
//! Redis alone knows it, and only of late: an agent is remembered for five minutes after its last sign of life.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use runcast_common::pulse::{self, Known};
use serde::Serialize;

use super::Gateway;
use super::problem::Problem;
use super::runs::admit;
use crate::access::Scope;
use crate::access::principal::Principal;

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new().route("/v1/runs/{run}/agents", get(list))
}

#[derive(Debug, Serialize)]
struct List {
    agents: Vec<Known>,
}

async fn list(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<List>, Problem> {
    let (run, _coverage) = admit(&gateway, &principal, Scope::Read, &id).await?;
    let keys = gateway.keys();
    let agents = pulse::agents_of(gateway.redis(), keys, &keys.run(run)).await?;
    Ok(Json(List { agents }))
}
