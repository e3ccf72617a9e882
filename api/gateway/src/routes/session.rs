//! `/v1/session`: the own session: who am I, change preferences and password, sign out.
//!
//! [`super::sign_in`] starts one.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::users::checked_preferences;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::middleware::same_origin::same_origin;
use crate::problem::Problem;
use runcast_access::grant::{Grant, Labels};
use runcast_access::principal::Principal;
use runcast_access::session::cookie;
use runcast_store::users::{User, UserChange};

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(who, change, sign_out))
        .routes(routes!(change_password))
}

/// The principal of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WhoAsks {
    name: String,
    scopes: Vec<&'static str>,
    /// The scopes, each with the runs that it covers.
    grants: Vec<GrantView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Uuid>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Grant)]
struct GrantView {
    scopes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    labels: Option<Labels>,
}

impl GrantView {
    fn of(grant: &Grant) -> Self {
        Self {
            scopes: grant.scopes.names(),
            run: grant.run,
            labels: grant.labels.clone(),
        }
    }
}

impl WhoAsks {
    pub(super) fn of(principal: Principal, user: Option<User>) -> Self {
        Self {
            scopes: principal.scopes().names(),
            grants: principal.grants().iter().map(GrantView::of).collect(),
            user,
            session: principal.session,
            name: principal.name,
        }
    }
}

/// Returns the principal of the credential, and what it may do.
#[utoipa::path(
    get,
    path = "/v1/session",
    responses(
        (status = 200, description = "The principal", body = WhoAsks),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn who(Caller(principal): Caller, State(gateway): State<Gateway>) -> Json<WhoAsks> {
    let user = match principal.user {
        Some(user) if !principal.by_token => gateway.store().user(user).await,
        _ => Ok(None),
    };
    let user = user.unwrap_or_else(|error| {
        warn!(%error, "cannot read the preferences of a user; answering without them");
        None
    });
    Json(WhoAsks::of(principal, user))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OwnChange {
    #[schema(value_type = Object)]
    preferences: Value,
}

/// Replaces the preferences of the user who has signed in.
#[utoipa::path(
    patch,
    path = "/v1/session",
    request_body = OwnChange,
    responses(
        (status = 200, description = "The user", body = WhoAsks),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn change(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(change): StrictJson<OwnChange>,
) -> Result<Json<WhoAsks>, Problem> {
    let id = own_user(&principal)?;
    let change = UserChange {
        preferences: Some(checked_preferences(change.preferences)?),
        ..UserChange::default()
    };
    let store = gateway.store();
    store
        .change_user(&principal.actor(), id, &change, None)
        .await?;
    let user = store.user(id).await?;
    Ok(Json(WhoAsks::of(principal, user)))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    #[schema(value_type = String)]
    password: SecretString,
    #[schema(value_type = String)]
    new_password: SecretString,
}

/// Changes the password of the user who has signed in; all their other sessions end.
#[utoipa::path(
    put,
    path = "/v1/session/password",
    request_body = PasswordChange,
    responses(
        (status = 204, description = "The password is changed"),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn change_password(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(passwords): StrictJson<PasswordChange>,
) -> Result<StatusCode, Problem> {
    let id = own_user(&principal)?;
    // A stolen session could be used to guess the password here as well.
    gateway.limits().check_sign_in(&principal.name).await?;
    let (store, access) = (gateway.store(), gateway.access());
    let user = store.sign_in_user(&principal.name).await?;
    let hash = user.and_then(|user| user.password);
    if !access
        .passwords()
        .check(&passwords.password, hash.as_deref())
        .await?
    {
        access.record_failed_sign_in(id, &principal.name);
        access.metrics().denied("password");
        return Err(Problem::forbidden("the current password is wrong"));
    }
    let change = UserChange {
        password: Some(access.passwords().hash(&passwords.new_password).await?),
        ..UserChange::default()
    };
    store
        .change_user(&principal.actor(), id, &change, principal.session)
        .await?;
    access.settle().await;
    Ok(StatusCode::NO_CONTENT)
}

/// The user who has signed in. A token may not change what its owner signs in with.
fn own_user(principal: &Principal) -> Result<Uuid, Problem> {
    match principal.user {
        Some(user) if !principal.by_token => Ok(user),
        _ => Err(Problem::forbidden(
            "this is for users who have signed in, not for tokens",
        )),
    }
}

/// Ends the session, if there is one.
#[utoipa::path(
    delete,
    path = "/v1/session",
    responses(
        (status = 204, description = "`Set-Cookie` removes the cookie"),
        (status = 403, description = "The request comes from another site's page"),
    ),
    security(()),
    extensions(("x-rate-class" = json!("write")))
)]
async fn sign_out(State(gateway): State<Gateway>, headers: HeaderMap) -> Result<Response, Problem> {
    same_origin(&Method::DELETE, &headers)?;
    if let Some(session) = cookie::from_headers(&headers, gateway.is_secure()) {
        gateway.store().end_session(session.hash()).await?;
        gateway.access().settle().await;
    }
    let cookie = cookie::end(gateway.is_secure());
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
