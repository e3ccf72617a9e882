//! `/v1/roles`: what roles permit, and for which runs; for administrators.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::Gateway;
use super::body::Object;
use super::problem::Problem;
use super::runs::labels;
use super::users::admin;
use crate::access::Scope;
use crate::access::principal::Principal;
use crate::store::roles::{Role, RoleChange, RoleError};

/// Longest description of a role in bytes.
const MAX_DESCRIPTION_BYTES: usize = 500;

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/v1/roles", get(list).post(create))
        .route("/v1/roles/{role}", get(one).patch(change).delete(remove))
}

#[derive(Debug, Serialize)]
struct List {
    roles: Vec<Role>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    description: String,
    permissions: Vec<String>,
    labels: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    description: Option<String>,
    permissions: Option<Vec<String>>,
    /// `null` takes the bound away.
    #[serde(default, deserialize_with = "given")]
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

async fn list(principal: Principal, State(gateway): State<Gateway>) -> Result<Json<List>, Problem> {
    admin(&principal)?;
    let roles = gateway.store().roles().await?;
    Ok(Json(List { roles }))
}

async fn create(
    principal: Principal,
    State(gateway): State<Gateway>,
    Object(create): Object<Create>,
) -> Result<(StatusCode, Json<Role>), Problem> {
    admin(&principal)?;
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

async fn one(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
) -> Result<Json<Role>, Problem> {
    admin(&principal)?;
    find(&gateway, &name).await
}

async fn find(gateway: &Gateway, name: &str) -> Result<Json<Role>, Problem> {
    let role = gateway.store().role(name).await?;
    let unknown = || RoleError::Unknown(name.chars().take(64).collect());
    Ok(Json(role.ok_or_else(unknown)?))
}

/// For all who have the role, from this answer on.
async fn change(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Object(change): Object<Change>,
) -> Result<Json<Role>, Problem> {
    admin(&principal)?;
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

async fn remove(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    admin(&principal)?;
    gateway
        .store()
        .delete_role(&principal.actor(), &name)
        .await?;
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}
