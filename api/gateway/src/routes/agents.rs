//! Agents, the processes that publish, and whether they are alive.
//!
//! - `/v1/runs/{run}/agents`: the agents of a run, exact to the second. They are read from Redis,
//!   which keeps an agent for five minutes after its last heartbeat.
//! - `/v1/agents`: all agents, as the worker stored them in Postgres some seconds ago.

use axum::Json;
use axum::extract::{Path, State};
use runcast_common::presence::heartbeat::{self, AgentReport};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::run_access::authorize_run;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::page::PageSize;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::agents::KnownAgent;

const PAGE_AGENTS: PageSize = PageSize {
    default: 50,
    max: 200,
};

/// Values of the parameter `health`.
const HEALTH_STATES: [&str; 4] = ["alive", "stale", "lost", "ended"];

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_of_run))
        .routes(routes!(list))
}

#[derive(Debug, Serialize, ToSchema)]
struct Fleet {
    agents: Vec<KnownAgent>,
    /// The `before` of the next page.
    next: Option<Uuid>,
}

/// Lists all agents, newest first, as they were some seconds ago.
#[utoipa::path(
    get,
    path = "/v1/agents",
    params(
        ("health" = Option<String>, Query, description = "`alive`, `stale`, `lost` or `ended`"),
        ("before" = Option<Uuid>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "50, and 200 at most"),
    ),
    responses((status = 200, description = "A page of agents", body = Fleet)),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<Fleet>, Problem> {
    let visible = principal.visible(Scope::Read)?;
    let page = PAGE_AGENTS.limit(&query)?;
    let health = query.get("health");
    if health.is_some_and(|health| !HEALTH_STATES.contains(&health)) {
        let known = HEALTH_STATES.join(", ");
        return Err(Problem::bad_request(format!(
            "parameter health: expected one of {known}"
        )));
    }
    let before = query.parse("before")?;
    let mut agents = gateway
        .store()
        .agents(before, health, &visible, page.rows_to_read())
        .await?;
    let next = page.cut(&mut agents, |agent| agent.agent);
    Ok(Json(Fleet { agents, next }))
}

#[derive(Debug, Serialize, ToSchema)]
struct AgentsOfRun {
    /// What each reports about itself, its health, and its last heartbeat.
    #[schema(value_type = Vec<Object>)]
    agents: Vec<AgentReport>,
}

/// Lists the agents of a run, exact to the second.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/agents",
    responses((status = 200, description = "Agents with a heartbeat in the last five minutes", body = AgentsOfRun)),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list_of_run(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<AgentsOfRun>, Problem> {
    let (run, _coverage) = authorize_run(&gateway, &principal, Scope::Read, &id).await?;
    let keys = gateway.keys();
    let agents = heartbeat::read_run_agents(gateway.redis(), keys, &keys.run(run)).await?;
    Ok(Json(AgentsOfRun { agents }))
}
