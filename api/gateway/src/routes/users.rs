//! `/v1/users`: who there is, and what roles they have; for administrators. `{user}` is an id, a name or an address.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::users::{NewUser, User, UserChange};

/// Users of one page if nothing is said, and at most.
const PAGE_USERS: u16 = 50;
const MAX_PAGE_USERS: u16 = 200;

/// Longest preferences of a user, as JSON, in bytes.
const MAX_PREFERENCES_BYTES: usize = 16 * 1024;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, change))
        .routes(routes!(roles))
        .routes(routes!(grant, revoke))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Users)]
struct Users {
    users: Vec<User>,
    next: Option<Uuid>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserRoles)]
struct UserRoles {
    roles: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
struct Create {
    name: String,
    email: String,
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
    #[serde(default)]
    roles: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserChange)]
struct Change {
    email: Option<String>,
    #[schema(value_type = Option<Object>)]
    preferences: Option<Value>,
    disabled: Option<bool>,
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
}

/// The user that a path names.
///
/// # Errors
/// 404.
pub(super) async fn find(gateway: &Gateway, text: &str) -> Result<User, Problem> {
    let user = gateway.store().find_user(text).await?;
    user.ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        Problem::new(StatusCode::NOT_FOUND, format!("there is no user {shown}"))
    })
}

/// Preferences that may be kept.
///
/// # Errors
/// 400.
pub(super) fn preferences(value: Value) -> Result<Value, Problem> {
    let text = value.to_string();
    if value.is_object() && text.len() <= MAX_PREFERENCES_BYTES && !text.contains("\\u0000") {
        return Ok(value);
    }
    Err(Problem::bad_request(format!(
        "preferences: expected an object of at most {MAX_PREFERENCES_BYTES} bytes without NUL"
    )))
}

/// Lists users in the order of their creation.
#[utoipa::path(
    get,
    path = "/v1/users",
    params(
        ("after" = Option<Uuid>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "Users: 50, and 200 at most"),
    ),
    responses(
        (status = 200, description = "A page of them", body = Users),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn list(State(gateway): State<Gateway>, query: Query) -> Result<Json<Users>, Problem> {
    let limit = query.limit(PAGE_USERS, MAX_PAGE_USERS)?;
    // One more than asked for says whether there is a next page.
    let mut users = gateway
        .store()
        .users(query.parse("after")?, limit + 1)
        .await?;
    let more = users.len() > usize::from(limit);
    users.truncate(usize::from(limit));
    let next = users.last().map(|last| last.id).filter(|_| more);
    Ok(Json(Users { users, next }))
}

/// Creates a user.
#[utoipa::path(
    post,
    path = "/v1/users",
    request_body = Create,
    responses(
        (status = 201, description = "The user", body = User),
        (status = 409, description = "The name or the address is taken"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(create): StrictJson<Create>,
) -> Result<(StatusCode, Json<User>), Problem> {
    let password = match &create.password {
        Some(password) => Some(gateway.access().passwords().hash(password).await?),
        None => None,
    };
    let new = NewUser {
        name: &create.name,
        email: &create.email,
        password: password.as_deref(),
        roles: &create.roles,
    };
    let user = gateway
        .store()
        .create_user(&principal.actor(), &new)
        .await?;
    gateway.access().settle().await;
    Ok((StatusCode::CREATED, Json(user)))
}

/// Tells of a user.
#[utoipa::path(
    get,
    path = "/v1/users/{user}",
    responses(
        (status = 200, description = "The user", body = User),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn one(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<User>, Problem> {
    Ok(Json(find(&gateway, &user).await?))
}

/// Changes a user.
///
/// Who is disabled may do nothing from this answer on, at no gateway, and is signed out.
#[utoipa::path(
    patch,
    path = "/v1/users/{user}",
    request_body = Change,
    responses(
        (status = 200, description = "The user as it is now", body = User),
        (status = 409, description = "The address is taken"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn change(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
    StrictJson(change): StrictJson<Change>,
) -> Result<Json<User>, Problem> {
    let user = find(&gateway, &user).await?;
    let password = match &change.password {
        Some(password) => Some(gateway.access().passwords().hash(password).await?),
        None => None,
    };
    let change = UserChange {
        email: change.email,
        preferences: change.preferences.map(preferences).transpose()?,
        disabled: change.disabled,
        password,
    };
    let store = gateway.store();
    store
        .change_user(&principal.actor(), user.id, &change, None)
        .await?;
    gateway.access().settle().await;
    Ok(Json(find(&gateway, &user.id.to_string()).await?))
}

/// Lists the roles of a user.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/roles",
    responses(
        (status = 200, description = "Their names", body = UserRoles),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn roles(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<UserRoles>, Problem> {
    let roles = find(&gateway, &user).await?.roles;
    Ok(Json(UserRoles { roles }))
}

/// Gives a user a role.
#[utoipa::path(
    put,
    path = "/v1/users/{user}/roles/{role}",
    responses(
        (status = 204, description = "They have it"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn grant(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path((user, role)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user = find(&gateway, &user).await?;
    gateway
        .store()
        .grant_role(&principal.actor(), user.id, &role)
        .await?;
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a role from a user.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/roles/{role}",
    responses(
        (status = 204, description = "They no longer have it"),
        (status = 409, description = "Nobody else could administrate"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn revoke(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path((user, role)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user = find(&gateway, &user).await?;
    let (store, actor) = (gateway.store(), principal.actor());
    if !store.revoke_role(&actor, user.id, &role).await? {
        let shown: String = role.chars().take(64).collect();
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("{} does not have the role {shown}", user.name),
        ));
    }
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}
