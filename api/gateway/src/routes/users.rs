//! `/v1/users`: users and their roles; for administrators. `{user}` is an id, a name or an address.

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
use crate::extract::page::PageSize;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::users::{NewUser, User, UserChange};

const PAGE_USERS: PageSize = PageSize {
    default: 50,
    max: 200,
};

/// Longest preferences of a user, as JSON.
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
struct Users {
    users: Vec<User>,
    next: Option<Uuid>,
}

#[derive(Debug, Serialize, ToSchema)]
struct UserRoles {
    roles: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
struct NewUserBody {
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
struct UserChangeBody {
    email: Option<String>,
    #[schema(value_type = Option<Object>)]
    preferences: Option<Value>,
    disabled: Option<bool>,
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
}

/// The user that a path names, else 404.
pub(super) async fn find_user(gateway: &Gateway, text: &str) -> Result<User, Problem> {
    let user = gateway.store().find_user(text).await?;
    user.ok_or_else(|| Problem::not_found("user", text))
}

/// Checks preferences of a user.
pub(super) fn checked_preferences(value: Value) -> Result<Value, Problem> {
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
        (status = 200, description = "A page of users", body = Users),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(State(gateway): State<Gateway>, query: Query) -> Result<Json<Users>, Problem> {
    let page = PAGE_USERS.limit(&query)?;
    let after = query.parse("after")?;
    let mut users = gateway.store().users(after, page.rows_to_read()).await?;
    let next = page.cut(&mut users, |user| user.id);
    Ok(Json(Users { users, next }))
}

/// Creates a user.
#[utoipa::path(
    post,
    path = "/v1/users",
    request_body = NewUserBody,
    responses(
        (status = 201, description = "The user", body = User),
        (status = 409, description = "The name or the address is taken"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(body): StrictJson<NewUserBody>,
) -> Result<(StatusCode, Json<User>), Problem> {
    let password = match &body.password {
        Some(password) => Some(gateway.access().passwords().hash(password).await?),
        None => None,
    };
    let new = NewUser {
        name: &body.name,
        email: &body.email,
        password: password.as_deref(),
        roles: &body.roles,
    };
    let user = gateway
        .store()
        .create_user(&principal.actor(), &new)
        .await?;
    gateway.access().settle().await;
    Ok((StatusCode::CREATED, Json(user)))
}

/// Reads one user.
#[utoipa::path(
    get,
    path = "/v1/users/{user}",
    responses(
        (status = 200, description = "The user", body = User),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn one(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<User>, Problem> {
    Ok(Json(find_user(&gateway, &user).await?))
}

/// Changes a user.
///
/// From this answer on a disabled user is signed out, and refused by all gateways.
#[utoipa::path(
    patch,
    path = "/v1/users/{user}",
    request_body = UserChangeBody,
    responses(
        (status = 200, description = "The changed user", body = User),
        (status = 409, description = "The address is taken"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn change(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
    StrictJson(body): StrictJson<UserChangeBody>,
) -> Result<Json<User>, Problem> {
    let user = find_user(&gateway, &user).await?;
    let password = match &body.password {
        Some(password) => Some(gateway.access().passwords().hash(password).await?),
        None => None,
    };
    let change = UserChange {
        email: body.email,
        preferences: body.preferences.map(checked_preferences).transpose()?,
        disabled: body.disabled,
        password,
    };
    let store = gateway.store();
    store
        .change_user(&principal.actor(), user.id, &change, None)
        .await?;
    gateway.access().settle().await;
    Ok(Json(find_user(&gateway, &user.id.to_string()).await?))
}

/// Lists the roles of a user.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/roles",
    responses(
        (status = 200, description = "The names of the roles", body = UserRoles),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn roles(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<UserRoles>, Problem> {
    let roles = find_user(&gateway, &user).await?.roles;
    Ok(Json(UserRoles { roles }))
}

/// Grants a role to a user.
#[utoipa::path(
    put,
    path = "/v1/users/{user}/roles/{role}",
    responses(
        (status = 204, description = "The user has the role"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn grant(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path((user, role)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user = find_user(&gateway, &user).await?;
    gateway
        .store()
        .grant_role(&principal.actor(), user.id, &role)
        .await?;
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a role of a user.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/roles/{role}",
    responses(
        (status = 204, description = "The user no longer has the role"),
        (status = 409, description = "The user is the last administrator"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn revoke(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path((user, role)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user = find_user(&gateway, &user).await?;
    let (store, actor) = (gateway.store(), principal.actor());
    if !store.revoke_role(&actor, user.id, &role).await? {
        let role: String = role.chars().take(64).collect();
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("{} does not have the role {role}", user.name),
        ));
    }
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}
