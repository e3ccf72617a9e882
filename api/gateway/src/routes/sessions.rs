//! `/v1/sessions`: where one is signed in, and to end that; `/v1/users/{user}/sessions`: the same for administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::users::find;
use crate::Gateway;
use crate::extract::caller::Caller;
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
#[schema(as = Sessions)]
struct Sessions {
    sessions: Vec<Session>,
    /// The one that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Uuid>,
}

/// Lists where one is signed in.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    responses(
        (status = 200, description = "Sessions of whoever asks", body = Sessions),
    ),
    security(("bearer" = []))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
) -> Result<Json<Sessions>, Problem> {
    let sessions = gateway.store().sessions_of(principal.owner()).await?;
    let current = principal.session;
    Ok(Json(Sessions { sessions, current }))
}

/// Ends all sessions of whoever asks, the one that asks among them.
#[utoipa::path(
    delete,
    path = "/v1/sessions",
    responses(
        (status = 204, description = "They have ended"),
    ),
    security(("bearer" = []))
)]
async fn end_all(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
) -> Result<StatusCode, Problem> {
    revoke(&gateway, &principal, principal.owner(), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session of whoever asks.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{session}",
    responses(
        (status = 204, description = "It has ended"),
        (status = 404, description = "Whoever asks has no such session"),
    ),
    security(("bearer" = []))
)]
async fn end(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(session): Path<String>,
) -> Result<StatusCode, Problem> {
    let owner = principal.owner();
    end_one(&gateway, &principal, owner, &session).await
}

/// Lists where a user is signed in.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/sessions",
    responses(
        (status = 200, description = "Their sessions", body = Sessions),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn list_of(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<Sessions>, Problem> {
    let user = find(&gateway, &user).await?;
    let sessions = gateway.store().sessions_of(Owner::User(user.id)).await?;
    let current = None;
    Ok(Json(Sessions { sessions, current }))
}

/// Ends all sessions of a user.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/sessions",
    responses(
        (status = 204, description = "They have ended"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn end_all_of(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    let user = find(&gateway, &user).await?;
    revoke(&gateway, &principal, Owner::User(user.id), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session of a user.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/sessions/{session}",
    responses(
        (status = 204, description = "It has ended"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn end_of(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path((user, session)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
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
