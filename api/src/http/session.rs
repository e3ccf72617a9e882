//! `/v1/session`: sign in with a token, who am I, sign out.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Gateway;
use super::body::Object;
use super::problem::Problem;
use crate::access::principal::{Principal, same_origin};
use crate::access::secret::Secret;
use crate::access::session;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(who, sign_in, sign_out))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignIn {
    #[schema(value_type = String)]
    token: SecretString,
}

#[derive(Debug, Serialize, ToSchema)]
struct Session {
    name: String,
    scopes: Vec<&'static str>,
}

impl Session {
    fn of(principal: Principal) -> Self {
        Self {
            scopes: principal.scopes.iter().map(|scope| scope.name()).collect(),
            name: principal.name,
        }
    }
}

/// Tells who asks, and what they may do.
#[utoipa::path(
    get,
    path = "/v1/session",
    responses((status = 200, description = "Whoever the credential is of", body = Session)),
    security(("bearer" = []))
)]
async fn who(principal: Principal) -> Json<Session> {
    Json(Session::of(principal))
}

/// Signs in with a token.
///
/// It always starts a new session, so that nobody can prepare one for somebody else.
#[utoipa::path(
    post,
    path = "/v1/session",
    request_body = SignIn,
    responses(
        (status = 200, description = "`Set-Cookie` starts the session", body = Session),
        (status = 401, description = "The token is unknown, expired or revoked"),
        (status = 403, description = "The request comes from another site's page"),
    ),
    security(())
)]
async fn sign_in(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    Object(sign_in): Object<SignIn>,
) -> Result<Response, Problem> {
    same_origin(&Method::POST, &headers)?;
    let token = Secret::claimed(sign_in.token.expose_secret().trim());
    let row = gateway.store().token(token.hash()).await?;
    let row =
        row.ok_or_else(|| Problem::unauthorized("the token is unknown, expired or revoked"))?;
    let whose = row.id.to_string();
    gateway.limits().sign_in_as(&whose).await?;
    let fresh = Secret::generate("").map_err(|error| {
        tracing::error!(%error, "no session could be made");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "no session could be made",
        )
    })?;
    gateway
        .store()
        .create_session(fresh.hash(), row.id, session::LIFE)
        .await?;
    let cookie = session::start(&fresh, gateway.is_secure());
    let session = Session::of(Principal::of(row));
    Ok(([(header::SET_COOKIE, cookie)], Json(session)).into_response())
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
    if let Some(session) = session::from_headers(&headers) {
        gateway.store().end_session(session.hash()).await?;
    }
    let cookie = session::end(gateway.is_secure());
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
