//! `/v1/session/oidc`: sign in with OpenID Connect; `/v1/session/ways`: the ways to sign in.
//!
//! A link of the page leads a browser here, to the issuer, and back to the callback. If something
//! goes wrong, a browser is sent to the page with one word that the page knows; other clients get a
//! problem document. What the issuer said is in the log only.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse as _, Redirect, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sign_in::{checked_client, start_session};
use crate::Gateway;
use crate::extract::query::Query;
use crate::middleware::same_origin::same_origin;
use crate::problem::Problem;
use runcast_access::oidc::{CallbackParams, CompletedLogin, Oidc, SignInRefused};
use runcast_access::principal::Principal;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(ways))
        .routes(routes!(begin))
        .routes(routes!(callback))
}

/// Ways to sign in, beside a token, and a name with a password.
#[derive(Debug, Serialize, ToSchema)]
struct SignInWays {
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<OidcIssuer>,
}

/// An OpenID Connect issuer.
#[derive(Debug, Serialize, ToSchema)]
struct OidcIssuer {
    /// Its name for people.
    name: String,
}

/// Returns the ways to sign in, beside a token, and a name with a password.
#[utoipa::path(
    get,
    path = "/v1/session/ways",
    responses(
        (status = 200, description = "The issuer, if there is one", body = SignInWays),
    ),
    security(()),
    extensions(("x-rate-class" = json!("read")))
)]
async fn ways(State(gateway): State<Gateway>) -> Json<SignInWays> {
    let oidc = gateway.oidc().map(|oidc| OidcIssuer {
        name: oidc.name().to_owned(),
    });
    Json(SignInWays { oidc })
}

/// Sends a browser to the issuer, to sign in there.
#[utoipa::path(
    get,
    path = "/v1/session/oidc",
    params(
        ("return_to" = Option<String>, Query, description = "The path of this server to redirect to afterwards; / by default"),
        ("client" = Option<String>, Query, description = "A client has one session at a time"),
    ),
    responses(
        (status = 303, description = "`Location` is the issuer, or the page if the issuer does not answer; `Set-Cookie` \
            binds the sign-in to the browser for ten minutes"),
        (status = 403, description = "The request comes from another site's page"),
        (status = 404, description = "No issuer is configured"),
    ),
    security(()),
    extensions(("x-rate-class" = json!("sign-in")))
)]
async fn begin(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    let oidc = issuer(&gateway)?;
    // Otherwise any page could change who is signed in here.
    same_origin(&Method::GET, &headers)?;
    let client = query.get("client").map(checked_client).transpose()?;
    let return_to = query.get("return_to").unwrap_or("/");
    match gateway.access().begin_login(oidc, return_to, client).await {
        Ok(begun) => {
            let cookie = [(header::SET_COOKIE, begun.cookie)];
            Ok((cookie, Redirect::to(begun.to.as_str())).into_response())
        }
        Err(SignInRefused::ReturnTo) => {
            Err(Problem::bad_request(SignInRefused::ReturnTo.to_string()))
        }
        Err(refused) => refuse(&gateway, &headers, refused),
    }
}

/// Receives a browser from the issuer, and signs in.
///
/// It starts a new session, as any other sign-in does; the session before ends.
#[utoipa::path(
    get,
    path = "/v1/session/oidc/callback",
    params(
        ("state" = Option<String>, Query, description = "The state that the browser was sent to the issuer with"),
        ("code" = Option<String>, Query, description = "The code that the issuer exchanges for tokens"),
        ("error" = Option<String>, Query, description = "Why the issuer refused"),
        ("error_description" = Option<String>, Query, description = "The same in words"),
        ("iss" = Option<String>, Query, description = "The issuer (RFC 9207)"),
    ),
    responses(
        (status = 303, description = "`Location` is the `return_to` of the sign-in, and `Set-Cookie` starts the session; \
            or it is the page, which says why the sign-in failed"),
        (status = 401, description = "What the issuer sent is not valid"),
        (status = 403, description = "The issuer refused, or its identity belongs to no user here"),
        (status = 404, description = "No issuer is configured"),
    ),
    security(()),
    extensions(("x-rate-class" = json!("read")))
)]
async fn callback(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    let oidc = issuer(&gateway)?;
    let text = |name| query.get(name).map(str::to_owned);
    let returned = CallbackParams {
        state: text("state").unwrap_or_default(),
        code: text("code"),
        error: text("error"),
        description: text("error_description"),
        issuer: text("iss"),
    };
    let access = gateway.access();
    let finished = access.finish_login(oidc, &headers, returned).await;
    let answer = match finished {
        // The sign-in may still finish: in another window, or at a gateway whose Redis answers. So
        // the browser keeps its cookie.
        Err(refused @ (SignInRefused::Stale | SignInRefused::Redis(_))) => {
            return refuse(&gateway, &headers, refused);
        }
        Ok(finished) => match sign_in(&gateway, &headers, finished).await {
            Ok(answer) => Ok(answer),
            Err(problem) if problem.status() == StatusCode::TOO_MANY_REQUESTS => {
                answer_failed(&headers, "often", problem)
            }
            Err(problem) => answer_failed(&headers, "unavailable", problem),
        },
        Err(refused) => refuse(&gateway, &headers, refused),
    };
    let forget = AppendHeaders([(header::SET_COOKIE, oidc.forget())]);
    Ok((forget, answer).into_response())
}

/// The issuer of this gateway, else 404.
pub(super) fn issuer(gateway: &Gateway) -> Result<&Oidc, Problem> {
    gateway.oidc().ok_or_else(|| {
        let detail = "no issuer is configured: sign in with a name and a password, or with a token";
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}

async fn sign_in(
    gateway: &Gateway,
    headers: &HeaderMap,
    finished: CompletedLogin,
) -> Result<Response, Problem> {
    // Each session is a row in Postgres.
    let user = finished.user;
    gateway.limits().check_sign_in(&user.to_string()).await?;
    let principal = Principal::of_user(gateway.access(), user).await?;
    let client = finished.client.as_deref();
    let cookie = start_session(gateway, headers, &principal, client, "oidc").await?;
    let cookie = AppendHeaders([(header::SET_COOKIE, cookie)]);
    Ok((cookie, Redirect::to(&finished.return_to)).into_response())
}

fn refuse(
    gateway: &Gateway,
    headers: &HeaderMap,
    refused: SignInRefused,
) -> Result<Response, Problem> {
    if let Some(reason) = refused.denial() {
        gateway.access().metrics().denied(reason);
    }
    answer_failed(headers, refused.word(), refused.into())
}

/// Answers a failed sign-in: a client that accepts HTML is sent to the page with this word, others
/// get the problem.
fn answer_failed(headers: &HeaderMap, word: &str, problem: Problem) -> Result<Response, Problem> {
    let accepts = headers.get_all(header::ACCEPT).iter();
    let mut accepts = accepts.filter_map(|value| value.to_str().ok());
    match accepts.any(|value| value.contains("text/html")) {
        true => Ok(Redirect::to(&format!("/#/?sign-in={word}")).into_response()),
        false => Err(problem),
    }
}

impl From<SignInRefused> for Problem {
    fn from(refused: SignInRefused) -> Self {
        let status = match refused {
            SignInRefused::Redis(error) => return error.into(),
            SignInRefused::Store(error) => return error.into(),
            SignInRefused::Random(error) => {
                error!(%error, "no secret can be generated; users cannot sign in with OpenID Connect");
                return Self::internal("the sign-in cannot start");
            }
            SignInRefused::ReturnTo | SignInRefused::Stale | SignInRefused::OtherIssuer => {
                StatusCode::BAD_REQUEST
            }
            SignInRefused::InvalidAnswer => StatusCode::UNAUTHORIZED,
            SignInRefused::Denied | SignInRefused::Unverified | SignInRefused::Unknown => {
                StatusCode::FORBIDDEN
            }
            SignInRefused::IssuerUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refused.to_string())
    }
}
