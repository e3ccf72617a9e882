//! `/v1/sessions`: where one is signed in, and to end that; `/v1/users/{user}/sessions`: the same for administrators.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Serialize;
use uuid::Uuid;

use super::Gateway;
use super::problem::Problem;
use super::users::{admin, find};
use crate::access::principal::Principal;
use crate::store::sessions::{Owner, Session};

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/v1/sessions", get(list).delete(end_all))
        .route("/v1/sessions/{session}", delete(end))
        .route("/v1/users/{user}/sessions", get(list_of).delete(end_all_of))
        .route("/v1/users/{user}/sessions/{session}", delete(end_of))
}

#[derive(Debug, Serialize)]
struct List {
    sessions: Vec<Session>,
    /// The one that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Uuid>,
}

async fn list(principal: Principal, State(gateway): State<Gateway>) -> Result<Json<List>, Problem> {
    let sessions = gateway.store().sessions_of(principal.owner()).await?;
    let current = principal.session;
    Ok(Json(List { sessions, current }))
}

/// All of them, the one that asks among them.
async fn end_all(
    principal: Principal,
    State(gateway): State<Gateway>,
) -> Result<StatusCode, Problem> {
    revoke(&gateway, &principal, principal.owner(), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn end(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(session): Path<String>,
) -> Result<StatusCode, Problem> {
    let owner = principal.owner();
    end_one(&gateway, &principal, owner, &session).await
}

async fn list_of(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<List>, Problem> {
    admin(&principal)?;
    let user = find(&gateway, &user).await?;
    let sessions = gateway.store().sessions_of(Owner::User(user.id)).await?;
    let current = None;
    Ok(Json(List { sessions, current }))
}

async fn end_all_of(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    admin(&principal)?;
    let user = find(&gateway, &user).await?;
    revoke(&gateway, &principal, Owner::User(user.id), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn end_of(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path((user, session)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    admin(&principal)?;
    let user = find(&gateway, &user).await?;
    end_one(&gateway, &principal, Owner::User(user.id), &session).await
}

async fn end_one(
    gateway: &Gateway,
    principal: &Principal,
    owner: Owner,
    session: &str,
) -> Result<StatusCode, Problem> {
    let missing = || {
        let shown: String = session.chars().take(64).collect();
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no session {shown}"),
        )
    };
    let id = Uuid::try_parse(session).map_err(|_no_id| missing())?;
    match revoke(gateway, principal, owner, Some(id)).await? {
        0 => Err(missing()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Ends them at all gateways before this answers.
async fn revoke(
    gateway: &Gateway,
    principal: &Principal,
    owner: Owner,
    only: Option<Uuid>,
) -> Result<u64, Problem> {
    let (store, actor) = (gateway.store(), principal.actor());
    let ended = store.revoke_sessions(&actor, owner, only).await?;
    gateway.access().settle().await;
    Ok(ended)
}
