//! `/v1/roles`: roles: what they permit, and for which runs; for administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::extract::labels::checked_labels;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::roles::{Role, RoleChange, RoleError};

/// Longest description of a role.
const MAX_DESCRIPTION_BYTES: usize = 500;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, change, remove))
}

#[derive(Debug, Serialize, ToSchema)]
struct Roles {
    roles: Vec<Role>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRole {
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
struct RoleChangeBody {
    description: Option<String>,
    permissions: Option<Vec<String>>,
    /// `null` removes the restriction to labels.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    labels: Option<Option<Map<String, Value>>>,
}

/// Distinguishes `null` from an absent field.
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Map<String, Value>>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn checked_permissions(names: Vec<String>) -> Result<Vec<String>, Problem> {
    for name in &names {
        name.parse::<Scope>()
            .map_err(|expected| Problem::bad_request(format!("permissions: {expected}")))?;
    }
    Ok(names)
}

fn checked_description(text: String) -> Result<String, Problem> {
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
        (status = 200, description = "All roles", body = Roles),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(State(gateway): State<Gateway>) -> Result<Json<Roles>, Problem> {
    let roles = gateway.store().roles().await?;
    Ok(Json(Roles { roles }))
}

/// Creates a role.
#[utoipa::path(
    post,
    path = "/v1/roles",
    request_body = NewRole,
    responses(
        (status = 201, description = "The role", body = Role),
        (status = 409, description = "The name is taken"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(body): StrictJson<NewRole>,
) -> Result<(StatusCode, Json<Role>), Problem> {
    let role = Role {
        name: body.name,
        description: checked_description(body.description)?,
        built_in: false,
        labels: body.labels.map(checked_labels).transpose()?,
        permissions: checked_permissions(body.permissions)?,
    };
    let store = gateway.store();
    store.create_role(&principal.actor(), &role).await?;
    Ok((StatusCode::CREATED, Json(role)))
}

/// Reads one role.
#[utoipa::path(
    get,
    path = "/v1/roles/{role}",
    responses(
        (status = 200, description = "The role", body = Role),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn one(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
) -> Result<Json<Role>, Problem> {
    find_role(&gateway, &name).await
}

async fn find_role(gateway: &Gateway, name: &str) -> Result<Json<Role>, Problem> {
    let role = gateway.store().role(name).await?;
    let unknown = || RoleError::Unknown(name.chars().take(64).collect());
    Ok(Json(role.ok_or_else(unknown)?))
}

/// Changes a role, from this answer on, for all users that have it.
#[utoipa::path(
    patch,
    path = "/v1/roles/{role}",
    request_body = RoleChangeBody,
    responses(
        (status = 200, description = "The changed role", body = Role),
        (status = 409, description = "The role is built in"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn change(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    StrictJson(body): StrictJson<RoleChangeBody>,
) -> Result<Json<Role>, Problem> {
    let checked = |labels: Option<Map<String, Value>>| labels.map(checked_labels).transpose();
    let change = RoleChange {
        description: body.description.map(checked_description).transpose()?,
        permissions: body.permissions.map(checked_permissions).transpose()?,
        labels: body.labels.map(checked).transpose()?,
    };
    let store = gateway.store();
    store
        .change_role(&principal.actor(), &name, &change)
        .await?;
    gateway.access().settle().await;
    find_role(&gateway, &name).await
}

/// Removes a role, and revokes it from all users that have it.
#[utoipa::path(
    delete,
    path = "/v1/roles/{role}",
    responses(
        (status = 204, description = "The role is removed"),
        (status = 409, description = "The role is built in"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
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
