//! `/v1/sessions`: the own sessions, to list and end them; `/v1/users/{user}/sessions`: those of a
//! user, for administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::users::find_user;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::path::path_id;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_store::sessions::{Owner, Session};

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list, end_all))
        .routes(routes!(end))
        .routes(routes!(list_of, end_all_of))
        .routes(routes!(end_of))
}

#[derive(Debug, Serialize, ToSchema)]
struct Sessions {
    sessions: Vec<Session>,
    /// The session of this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Uuid>,
}

/// Lists the own sessions.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    responses(
        (status = 200, description = "The sessions", body = Sessions),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
) -> Result<Json<Sessions>, Problem> {
    let sessions = gateway.store().sessions_of(principal.owner()).await?;
    let current = principal.session;
    Ok(Json(Sessions { sessions, current }))
}

/// Ends all own sessions, including that of this request.
#[utoipa::path(
    delete,
    path = "/v1/sessions",
    responses(
        (status = 204, description = "The sessions have ended"),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn end_all(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
) -> Result<StatusCode, Problem> {
    revoke(&gateway, &principal, principal.owner(), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends one of the own sessions.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{session}",
    responses(
        (status = 204, description = "The session has ended"),
        (status = 404, description = "There is no such session of the caller"),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn end(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(session): Path<String>,
) -> Result<StatusCode, Problem> {
    let owner = principal.owner();
    end_one(&gateway, &principal, owner, &session).await
}

/// Lists the sessions of a user.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/sessions",
    responses(
        (status = 200, description = "The sessions", body = Sessions),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list_of(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<Sessions>, Problem> {
    let user = find_user(&gateway, &user).await?;
    let sessions = gateway.store().sessions_of(Owner::User(user.id)).await?;
    let current = None;
    Ok(Json(Sessions { sessions, current }))
}

/// Ends all sessions of a user.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/sessions",
    responses(
        (status = 204, description = "The sessions have ended"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn end_all_of(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    let user = find_user(&gateway, &user).await?;
    revoke(&gateway, &principal, Owner::User(user.id), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session of a user.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/sessions/{session}",
    responses(
        (status = 204, description = "The session has ended"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn end_of(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path((user, session)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user = find_user(&gateway, &user).await?;
    end_one(&gateway, &principal, Owner::User(user.id), &session).await
}

async fn end_one(
    gateway: &Gateway,
    principal: &Principal,
    owner: Owner,
    session: &str,
) -> Result<StatusCode, Problem> {
    let id = path_id("session", session)?;
    match revoke(gateway, principal, owner, Some(id)).await? {
        0 => Err(Problem::not_found("session", session)),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Ends sessions at all gateways before it returns.
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
