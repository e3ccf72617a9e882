//! The processes that publish, and whether they live.
//!
//! - `/v1/runs/{run}/agents`: those of a run, of late and to the second: Redis alone knows it, and remembers an
//!   agent for five minutes after its last sign of life.
//! - `/v1/agents`: all of them, as the worker has noted it, some seconds later.

use axum::Json;
use axum::extract::{Path, State};
use runcast_common::presence::heartbeat::{self, AgentReport};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::runs::admit;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::agents::KnownAgent;

/// Agents of one page if nothing is said, and at most.
const PAGE_AGENTS: u16 = 50;
const MAX_PAGE_AGENTS: u16 = 200;

/// What an agent's health may be asked for.
const HEALTH: [&str; 4] = ["alive", "stale", "lost", "ended"];

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(fleet))
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
    responses((status = 200, description = "A page of them", body = Fleet)),
    security(("bearer" = [Scope::Read]))
)]
async fn fleet(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<Fleet>, Problem> {
    let visible = principal.visible(Scope::Read)?;
    let limit = query.limit(PAGE_AGENTS, MAX_PAGE_AGENTS)?;
    let health = query.get("health");
    if health.is_some_and(|health| !HEALTH.contains(&health)) {
        let known = HEALTH.join(", ");
        return Err(Problem::bad_request(format!(
            "parameter health: expected one of {known}"
        )));
    }
    // One more than asked for says whether there is a next page.
    let before = query.parse("before")?;
    let mut agents = gateway
        .store()
        .agents(before, health, &visible, limit + 1)
        .await?;
    let more = agents.len() > usize::from(limit);
    agents.truncate(usize::from(limit));
    let next = agents.last().map(|last| last.agent).filter(|_| more);
    Ok(Json(Fleet { agents, next }))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AgentsOfRun)]
struct AgentsOfRun {
    /// What each says of itself, its health, and its last pulse.
    #[schema(value_type = Vec<Object>)]
    agents: Vec<AgentReport>,
}

/// Lists the agents of a run, to the second.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/agents",
    responses((status = 200, description = "Those that were heard in the last five minutes", body = AgentsOfRun)),
    security(("bearer" = [Scope::Read]))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<AgentsOfRun>, Problem> {
    let (run, _coverage) = admit(&gateway, &principal, Scope::Read, &id).await?;
    let keys = gateway.keys();
    let agents = heartbeat::agents_of(gateway.redis(), keys, &keys.run(run)).await?;
    Ok(Json(AgentsOfRun { agents }))
}
