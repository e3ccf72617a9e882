//! `POST /v1/session`: sign in with name and password, with a token, or with a one-time code.
//!
//! - Name and password: a wrong name, a wrong password, a missing one and a disabled user get the
//!   same answer, after the same work.
//! - Token: the session may do what the token may do.
//! - Code: `runcastd dev` prints a link with it. It is valid once and for ten minutes, and signs in
//!   as the admin token of the data folder.
//!
//! Every attempt counts as a sign-in of its address, and one with a valid token or code, or with a
//! name, also as one of that principal or name. A sign-in always starts a new session, so that no
//! one can prepare a session for someone else; the session before ends.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tower_sessions::Session as Visit;
use tower_sessions::session::Id;
use tracing::warn;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::session::WhoAsks;
use crate::Gateway;
use crate::extract::json::StrictJson;
use crate::middleware::same_origin::same_origin;
use crate::problem::Problem;
use runcast_access::principal::Principal;
use runcast_access::secret::Secret;
use runcast_access::session::{cookie, store};

/// Longest name of a client.
const MAX_CLIENT_BYTES: usize = 64;

/// Longest `User-Agent` that a session stores; a longer one is cut.
const MAX_USER_AGENT_BYTES: usize = 200;

/// Longest name or address of a user.
const MAX_LOGIN_BYTES: usize = 254;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(sign_in))
}

/// Either a token, or a user with a password, or a one-time code. A `client` has one session at a
/// time.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignIn {
    #[schema(value_type = Option<String>)]
    token: Option<SecretString>,
    user: Option<String>,
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
    /// The code of a one-time sign-in link.
    #[schema(value_type = Option<String>)]
    code: Option<SecretString>,
    client: Option<String>,
}

/// What a client proves who it is with.
#[derive(Debug)]
enum Proof {
    Token(SecretString),
    Password {
        user: String,
        password: SecretString,
    },
    Code(SecretString),
}

impl SignIn {
    /// The one proof of the body; 400 for none, half of one, or several.
    fn proof(self) -> Result<Proof, Problem> {
        match (self.token, self.user, self.password, self.code) {
            (Some(token), None, None, None) => Ok(Proof::Token(token)),
            (None, Some(user), Some(password), None) => Ok(Proof::Password { user, password }),
            (None, None, None, Some(code)) => Ok(Proof::Code(code)),
            _ => {
                let expected = "expected either token, or user and password, or code";
                Err(Problem::bad_request(expected))
            }
        }
    }
}

/// Signs in, with name and password, with a token, or with the code of a one-time sign-in link.
///
/// It always starts a new session, so that no one can prepare one for someone else; the session
/// before ends. A code is valid once, and for ten minutes.
#[utoipa::path(
    post,
    path = "/v1/session",
    request_body = SignIn,
    responses(
        (status = 200, description = "`Set-Cookie` starts the session", body = WhoAsks),
        (
            status = 401,
            description = "The name or the password is wrong, the token unknown, expired or revoked, or the code \
                unknown, expired or already used"
        ),
        (status = 403, description = "The request comes from another site's page"),
    ),
    security(()),
    extensions(("x-rate-class" = json!("sign-in")))
)]
async fn sign_in(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    StrictJson(body): StrictJson<SignIn>,
) -> Result<Response, Problem> {
    same_origin(&Method::POST, &headers)?;
    let client = body.client.clone();
    // 1. Prove who signs in.
    let (principal, by) = match body.proof()? {
        Proof::Token(token) => (with_token(&gateway, &token).await?, "token"),
        Proof::Password { user, password } => {
            let principal = with_password(&gateway, user.trim(), &password).await?;
            (principal, "password")
        }
        Proof::Code(code) => (with_code(&gateway, &code).await?, "code"),
    };
    // 2. Start the session.
    let cookie = start_session(&gateway, &headers, &principal, client.as_deref(), by).await?;
    let session = WhoAsks::of(principal, None);
    Ok(([(header::SET_COOKIE, cookie)], Json(session)).into_response())
}

async fn with_token(gateway: &Gateway, token: &SecretString) -> Result<Principal, Problem> {
    let token = Secret::from_text(token.expose_secret().trim());
    let principal = Principal::of_secret(gateway.access(), &token).await?;
    limit_sessions(gateway, &principal).await?;
    Ok(principal)
}

/// Redeems a one-time code. It is used up whatever comes of the sign-in.
async fn with_code(gateway: &Gateway, code: &SecretString) -> Result<Principal, Problem> {
    let access = gateway.access();
    let code = Secret::from_text(code.expose_secret().trim());
    let Some(credential) = access.redeem_sign_in_code(&code) else {
        access.metrics().denied("code");
        let detail = "the sign-in link has expired or was already used";
        return Err(Problem::unauthorized(detail));
    };
    let principal = Principal::of(access, credential).await?;
    limit_sessions(gateway, &principal).await?;
    Ok(principal)
}

/// A valid credential signs in so often only: each session is a row in Postgres. Tokens of runs
/// count for their parent.
async fn limit_sessions(gateway: &Gateway, principal: &Principal) -> Result<(), Problem> {
    let id = match principal.is_of_run() {
        true => principal.quota_owner(),
        false => principal.id,
    };
    Ok(gateway.limits().check_sign_in(&id.to_string()).await?)
}

/// One answer for a wrong name, a wrong password, a missing one, and a disabled user.
async fn with_password(
    gateway: &Gateway,
    login: &str,
    password: &SecretString,
) -> Result<Principal, Problem> {
    gateway.limits().check_sign_in(login).await?;
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
                access.record_failed_sign_in(user.id, &user.name);
            }
            access.metrics().denied("password");
            Err(Problem::unauthorized("the name or the password is wrong"))
        }
    }
}

/// Starts a session of a principal that has signed in (`by` says how), and returns the `Set-Cookie`
/// header for it. It is always a new session; the one that the browser had ends. 400 for an invalid
/// `client`.
pub(super) async fn start_session(
    gateway: &Gateway,
    headers: &HeaderMap,
    principal: &Principal,
    client: Option<&str>,
    by: &'static str,
) -> Result<String, Problem> {
    let id = store_session(gateway, headers, principal, client, by).await?;
    // The replaced session of this client ends at all gateways before the new one is known.
    gateway.access().settle().await;
    let session = Secret::from_text(&id.to_string());
    Ok(cookie::start(&session, gateway.is_secure()))
}

async fn store_session(
    gateway: &Gateway,
    headers: &HeaderMap,
    principal: &Principal,
    client: Option<&str>,
    by: &'static str,
) -> Result<Id, Problem> {
    let failed = |error: tower_sessions::session::Error| {
        warn!(%error, "cannot store a session; the sign-in is answered 503");
        Problem::unavailable("signing in is not possible at the moment; try again")
    };
    // 1. End the session that the browser had. Ending none would log a line each time.
    let before = cookie::from_headers(headers, gateway.is_secure());
    let before: Option<Id> = before.and_then(|secret| secret.expose().parse().ok());
    let visit = Visit::new(before, Arc::clone(gateway.access().sessions()) as _, None);
    if before.is_some() {
        visit.flush().await.map_err(failed)?;
    }
    // 2. Fill the new one.
    let owner = match principal.by_token {
        true => store::TOKEN,
        false => store::USER,
    };
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    let agent = agent.map(|agent| &agent[..agent.floor_char_boundary(MAX_USER_AGENT_BYTES)]);
    let client = client.map(checked_client).transpose()?;
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
    // 3. Store it, which gives it its id.
    visit.save().await.map_err(failed)?;
    let id = visit.id();
    id.ok_or_else(|| Problem::internal("no session could be created"))
}

/// Checks the name of a client.
pub(super) fn checked_client(client: &str) -> Result<String, Problem> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_CLIENT_BYTES).contains(&client.len()) && client.bytes().all(is_plain) {
        return Ok(client.to_owned());
    }
    Err(Problem::bad_request(format!(
        "client: expected 1 to {MAX_CLIENT_BYTES} letters, digits and - _ ."
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn proof(body: Value) -> Result<Proof, Problem> {
        let body: SignIn = serde_json::from_value(body).expect("a body");
        body.proof()
    }

    #[test]
    fn a_body_has_exactly_one_proof() {
        assert!(matches!(
            proof(json!({"token": "t", "client": "c"})),
            Ok(Proof::Token(_))
        ));
        assert!(matches!(
            proof(json!({"user": "u", "password": "p"})),
            Ok(Proof::Password { .. })
        ));
        assert!(matches!(
            proof(json!({"code": "c", "client": "c"})),
            Ok(Proof::Code(_))
        ));
        for body in [
            json!({}),
            json!({"client": "c"}),
            json!({"user": "u"}),
            json!({"password": "p"}),
            json!({"code": "c", "token": "t"}),
            json!({"code": "c", "user": "u", "password": "p"}),
            json!({"code": "c", "password": "p"}),
        ] {
            proof(body.clone()).expect_err(&body.to_string());
        }
    }

    #[test]
    fn the_name_of_a_client_is_short_and_plain() {
        for client in ["page", "a-b_c.1", &"x".repeat(MAX_CLIENT_BYTES)] {
            assert_eq!(checked_client(client).as_deref(), Ok(client));
        }
        for client in ["", "a b", "\u{e9}", &"x".repeat(MAX_CLIENT_BYTES + 1)] {
            checked_client(client).expect_err(client);
        }
    }
}
