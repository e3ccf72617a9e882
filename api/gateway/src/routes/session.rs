//! `/v1/session`: sign in with name and password or with a token, who am I, what I like, sign out.
//!
//! Whatever is wrong with a name and a password, the answer is the same, after the same work.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower_sessions::Session as Visit;
use tower_sessions::session::Id;
use tracing::warn;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::users::preferences;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::middleware::same_origin::same_origin;
use crate::problem::Problem;
use runcast_access::grant::{Grant, Labels};
use runcast_access::principal::Principal;
use runcast_access::secret::Secret;
use runcast_access::session::{cookie, store};
use runcast_store::users::{User, UserChange};

/// Longest name of a client, and of what it calls itself, in bytes.
const MAX_CLIENT_BYTES: usize = 64;
const MAX_AGENT_BYTES: usize = 200;

/// Longest name or address that anybody can have.
const MAX_LOGIN_BYTES: usize = 254;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(who, sign_in, change, sign_out))
        .routes(routes!(change_password))
}

/// Either a token, or a user with a password. A `client` has one session at a time.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignIn {
    #[schema(value_type = Option<String>)]
    token: Option<SecretString>,
    user: Option<String>,
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
    client: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WhoAsks)]
struct WhoAsks {
    name: String,
    scopes: Vec<&'static str>,
    /// The same by bounds.
    grants: Vec<Held>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Uuid>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Grant)]
struct Held {
    scopes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    labels: Option<Labels>,
}

impl Held {
    fn of(grant: &Grant) -> Self {
        Self {
            scopes: grant.scopes.names(),
            run: grant.run,
            labels: grant.labels.clone(),
        }
    }
}

impl WhoAsks {
    fn of(principal: Principal, user: Option<User>) -> Self {
        Self {
            scopes: principal.scopes().names(),
            grants: principal.grants().iter().map(Held::of).collect(),
            user,
            session: principal.session,
            name: principal.name,
        }
    }
}

/// Tells who asks, and what they may do.
#[utoipa::path(
    get,
    path = "/v1/session",
    responses(
        (status = 200, description = "Whoever the credential is of", body = WhoAsks),
    ),
    security(("bearer" = []))
)]
async fn who(Caller(principal): Caller, State(gateway): State<Gateway>) -> Json<WhoAsks> {
    let user = match principal.user {
        Some(user) if !principal.by_token => gateway.store().user(user).await,
        _ => Ok(None),
    };
    let user = user.unwrap_or_else(|error| {
        warn!(%error, "what a user likes is not known at the moment");
        None
    });
    Json(WhoAsks::of(principal, user))
}

/// Signs in, with name and password or with a token.
///
/// It always starts a new session, so that nobody can prepare one for somebody else; the one before ends.
#[utoipa::path(
    post,
    path = "/v1/session",
    request_body = SignIn,
    responses(
        (status = 200, description = "`Set-Cookie` starts the session", body = WhoAsks),
        (status = 401, description = "The name or the password is wrong, or the token unknown, expired or revoked"),
        (status = 403, description = "The request comes from another site's page"),
    ),
    security(())
)]
async fn sign_in(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    StrictJson(sign_in): StrictJson<SignIn>,
) -> Result<Response, Problem> {
    same_origin(&Method::POST, &headers)?;
    let principal = match &sign_in {
        SignIn {
            token: Some(token),
            user: None,
            password: None,
            ..
        } => {
            let token = Secret::claimed(token.expose_secret().trim());
            let principal = Principal::of_secret(gateway.access(), &token).await?;
            // Sessions that nobody needs are as many rows.
            let id = principal.id.to_string();
            gateway.limits().sign_in_as(&id).await?;
            principal
        }
        SignIn {
            token: None,
            user: Some(user),
            password: Some(password),
            ..
        } => by_password(&gateway, user.trim(), password).await?,
        _ => {
            let expected = "expected either token, or user and password";
            return Err(Problem::bad_request(expected));
        }
    };
    let by = match principal.by_token {
        true => "token",
        false => "password",
    };
    let client = sign_in.client.as_deref();
    let cookie = started(&gateway, &headers, &principal, client, by).await?;
    let session = WhoAsks::of(principal, None);
    Ok(([(header::SET_COOKIE, cookie)], Json(session)).into_response())
}

/// One answer for a wrong name, a wrong password, none at all, and a disabled user.
async fn by_password(
    gateway: &Gateway,
    login: &str,
    password: &SecretString,
) -> Result<Principal, Problem> {
    gateway.limits().sign_in_as(login).await?;
    let access = gateway.access();
    let user = match login.len() {
        0..=MAX_LOGIN_BYTES => gateway.store().sign_in_user(login).await?,
        _ => None,
    };
    let hash = user.as_ref().and_then(|user| user.password.as_deref());
    let is_right = access.passwords().check(password, hash).await?;
    match user {
        Some(user) if is_right && !user.disabled => Ok(Principal::of_user(access, user.id).await?),
        user => {
            if let Some(user) = user {
                access.note_failed_sign_in(user.id, &user.name);
            }
            access.meter().denied("password");
            Err(Problem::unauthorized("the name or the password is wrong"))
        }
    }
}

/// Starts a session of somebody who has proved who they are, in this way, and answers the header that tells the browser.
/// It is a new one, whatever the browser brought; what that was ends.
///
/// # Errors
/// 400 for a client that cannot be one, 503 if nobody can sign in at the moment.
pub(super) async fn started(
    gateway: &Gateway,
    headers: &HeaderMap,
    principal: &Principal,
    client: Option<&str>,
    by: &'static str,
) -> Result<String, Problem> {
    let id = start(gateway, headers, principal, client, by).await?;
    // The replaced session of this client ends everywhere before this one is known.
    gateway.access().settle().await;
    let session = Secret::claimed(&id.to_string());
    Ok(cookie::start(&session, gateway.is_secure()))
}

async fn start(
    gateway: &Gateway,
    headers: &HeaderMap,
    principal: &Principal,
    client: Option<&str>,
    by: &'static str,
) -> Result<Id, Problem> {
    let before = cookie::from_headers(headers, gateway.is_secure());
    let before: Option<Id> = before.and_then(|secret| secret.expose().parse().ok());
    let visit = Visit::new(before, Arc::new(gateway.access().clone()), None);
    let failed = |error: tower_sessions::session::Error| {
        warn!(%error, "nobody can sign in at the moment");
        Problem::unavailable("nobody can sign in at the moment; try again")
    };
    // Without one there is nothing to end, which would be a line in the log each time.
    if before.is_some() {
        visit.flush().await.map_err(failed)?;
    }
    let owner = match principal.by_token {
        true => store::TOKEN,
        false => store::USER,
    };
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    let agent = agent.map(|agent| &agent[..agent.floor_char_boundary(MAX_AGENT_BYTES)]);
    let client = client.map(fit_client).transpose()?;
    let data = [
        (owner, Some(principal.id.to_string())),
        (store::NAME, Some(principal.name.clone())),
        (store::CLIENT, client),
        (store::AGENT, agent.map(str::to_owned)),
        (store::BY, Some(by.to_owned())),
    ];
    for (name, value) in data {
        if let Some(value) = value {
            visit.insert(name, value).await.map_err(failed)?;
        }
    }
    visit.save().await.map_err(failed)?;
    visit.id().ok_or_else(|| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "no session could be made",
        )
    })
}

/// The name of a client that can be one.
///
/// # Errors
/// 400.
pub(super) fn fit_client(client: &str) -> Result<String, Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_CLIENT_BYTES).contains(&client.len()) && client.bytes().all(plain) {
        return Ok(client.to_owned());
    }
    Err(Problem::bad_request(format!(
        "client: expected 1 to {MAX_CLIENT_BYTES} letters, digits and - _ ."
    )))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OwnChange)]
struct OwnChange {
    #[schema(value_type = Object)]
    preferences: Value,
}

/// Replaces what the user likes.
#[utoipa::path(
    patch,
    path = "/v1/session",
    request_body = OwnChange,
    responses(
        (status = 200, description = "Whoever has signed in", body = WhoAsks),
    ),
    security(("bearer" = []))
)]
async fn change(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(change): StrictJson<OwnChange>,
) -> Result<Json<WhoAsks>, Problem> {
    let id = signed_in(&principal)?;
    let change = UserChange {
        preferences: Some(preferences(change.preferences)?),
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
#[schema(as = PasswordChange)]
struct PasswordChange {
    #[schema(value_type = String)]
    password: SecretString,
    #[schema(value_type = String)]
    new_password: SecretString,
}

/// Changes the password of whoever has signed in; all their other sessions end.
#[utoipa::path(
    put,
    path = "/v1/session/password",
    request_body = PasswordChange,
    responses(
        (status = 204, description = "It is changed"),
    ),
    security(("bearer" = []))
)]
async fn change_password(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(wanted): StrictJson<PasswordChange>,
) -> Result<StatusCode, Problem> {
    let id = signed_in(&principal)?;
    // Whoever has come by a session could guess the password here as well.
    gateway.limits().sign_in_as(&principal.name).await?;
    let (store, access) = (gateway.store(), gateway.access());
    let user = store.sign_in_user(&principal.name).await?;
    let hash = user.and_then(|user| user.password);
    if !access
        .passwords()
        .check(&wanted.password, hash.as_deref())
        .await?
    {
        access.note_failed_sign_in(id, &principal.name);
        access.meter().denied("password");
        return Err(Problem::forbidden("the password until now is wrong"));
    }
    let change = UserChange {
        password: Some(access.passwords().hash(&wanted.new_password).await?),
        ..UserChange::default()
    };
    store
        .change_user(&principal.actor(), id, &change, principal.session)
        .await?;
    access.settle().await;
    Ok(StatusCode::NO_CONTENT)
}

/// The user who has signed in as themselves: a token may not change what its owner signs in with.
fn signed_in(principal: &Principal) -> Result<Uuid, Problem> {
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
        (status = 204, description = "`Set-Cookie` forgets it"),
        (status = 403, description = "The request comes from another site's page"),
    ),
    security(())
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
