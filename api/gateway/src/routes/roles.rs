//! `/v1/roles`: what roles permit, and for which runs; for administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::runs::labels;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::roles::{Role, RoleChange, RoleError};

/// Longest description of a role in bytes.
const MAX_DESCRIPTION_BYTES: usize = 500;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, change, remove))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Roles)]
struct Roles {
    roles: Vec<Role>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewRole)]
struct Create {
    name: String,
    #[serde(default)]
    description: String,
    permissions: Vec<String>,
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    labels: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleChange)]
struct Change {
    description: Option<String>,
    permissions: Option<Vec<String>>,
    /// `null` takes the bound away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    labels: Option<Option<Map<String, Value>>>,
}

/// Tells `null` from what is not there.
fn given<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Map<String, Value>>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn permissions(names: Vec<String>) -> Result<Vec<String>, Problem> {
    for name in &names {
        name.parse::<Scope>()
            .map_err(|expected| Problem::bad_request(format!("permissions: {expected}")))?;
    }
    Ok(names)
}

fn description(text: String) -> Result<String, Problem> {
    if text.len() <= MAX_DESCRIPTION_BYTES {
        return Ok(text);
    }
    Err(Problem::bad_request(format!(
        "description: at most {MAX_DESCRIPTION_BYTES} bytes"
    )))
}

/// Lists all roles.
#[utoipa::path(
    get,
    path = "/v1/roles",
    responses(
        (status = 200, description = "All of them", body = Roles),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn list(State(gateway): State<Gateway>) -> Result<Json<Roles>, Problem> {
    let roles = gateway.store().roles().await?;
    Ok(Json(Roles { roles }))
}

/// Creates a role.
#[utoipa::path(
    post,
    path = "/v1/roles",
    request_body = Create,
    responses(
        (status = 201, description = "The role", body = Role),
        (status = 409, description = "The name is taken"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(create): StrictJson<Create>,
) -> Result<(StatusCode, Json<Role>), Problem> {
    let role = Role {
        name: create.name,
        description: description(create.description)?,
        built_in: false,
        labels: create.labels.map(labels).transpose()?,
        permissions: permissions(create.permissions)?,
    };
    let store = gateway.store();
    store.create_role(&principal.actor(), &role).await?;
    Ok((StatusCode::CREATED, Json(role)))
}

/// Tells of a role.
#[utoipa::path(
    get,
    path = "/v1/roles/{role}",
    responses(
        (status = 200, description = "The role", body = Role),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn one(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
) -> Result<Json<Role>, Problem> {
    find(&gateway, &name).await
}

async fn find(gateway: &Gateway, name: &str) -> Result<Json<Role>, Problem> {
    let role = gateway.store().role(name).await?;
    let unknown = || RoleError::Unknown(name.chars().take(64).collect());
    Ok(Json(role.ok_or_else(unknown)?))
}

/// Changes a role, for all who have it, from this answer on.
#[utoipa::path(
    patch,
    path = "/v1/roles/{role}",
    request_body = Change,
    responses(
        (status = 200, description = "The role as it is now", body = Role),
        (status = 409, description = "It is built in"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn change(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    StrictJson(change): StrictJson<Change>,
) -> Result<Json<Role>, Problem> {
    let bound = |wanted: Option<Map<String, Value>>| wanted.map(labels).transpose();
    let change = RoleChange {
        description: change.description.map(description).transpose()?,
        permissions: change.permissions.map(permissions).transpose()?,
        labels: change.labels.map(bound).transpose()?,
    };
    let store = gateway.store();
    store
        .change_role(&principal.actor(), &name, &change)
        .await?;
    gateway.access().settle().await;
    find(&gateway, &name).await
}

/// Removes a role, also from all who have it.
#[utoipa::path(
    delete,
    path = "/v1/roles/{role}",
    responses(
        (status = 204, description = "It is gone"),
        (status = 409, description = "It is built in"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn remove(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    gateway
        .store()
        .delete_role(&principal.actor(), &name)
        .await?;
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}
