//! `/v1/session/oidc`: sign in by OpenID Connect; `/v1/session/ways`: how one can sign in.
//!
//! A browser comes here by a link of the page, goes to the issuer, and comes back to the callback. Whatever goes wrong is
//! told by the page where a browser asks, which is sent there with one word that the page knows, and by a problem document
//! otherwise. What the issuer says stays in the log.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse as _, Redirect, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::session::{fit_client, started};
use crate::Gateway;
use crate::extract::query::Query;
use crate::middleware::same_origin::same_origin;
use crate::problem::Problem;
use runcast_access::oidc::{Finished, Oidc, Returned, SignInRefused};
use runcast_access::principal::Principal;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(ways))
        .routes(routes!(begin))
        .routes(routes!(finish))
}

/// How one can sign in, beside a token, and a name with a password.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignInWays)]
struct SignInWays {
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<OidcIssuer>,
}

/// An issuer of OpenID Connect.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OidcIssuer)]
struct OidcIssuer {
    /// What to call it.
    name: String,
}

/// Tells how one can sign in beside a token, and a name with a password.
#[utoipa::path(
    get,
    path = "/v1/session/ways",
    responses(
        (status = 200, description = "By which issuer, if there is one", body = SignInWays),
    ),
    security(())
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
        ("return_to" = Option<String>, Query, description = "The path of this server to go on to afterwards: /"),
        ("client" = Option<String>, Query, description = "A client has one session at a time"),
    ),
    responses(
        (status = 303, description = "`Location` is the issuer, or the page where that cannot be asked; `Set-Cookie` \
            holds the browser to it for ten minutes"),
        (status = 403, description = "The request comes from another site's page"),
        (status = 404, description = "There is no issuer"),
    ),
    security(())
)]
async fn begin(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    let oidc = issuer(&gateway)?;
    // Else any page could change who is signed in here.
    same_origin(&Method::GET, &headers)?;
    let client = query.get("client").map(fit_client).transpose()?;
    let return_to = query.get("return_to").unwrap_or("/");
    match oidc.begin(gateway.access(), return_to, client).await {
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

/// Takes a browser back from the issuer, and signs in.
///
/// It starts a new session, as any other sign-in does; the one before ends.
#[utoipa::path(
    get,
    path = "/v1/session/oidc/callback",
    params(
        ("state" = Option<String>, Query, description = "What the browser was sent to the issuer with"),
        ("code" = Option<String>, Query, description = "What the issuer gives tokens for"),
        ("error" = Option<String>, Query, description = "Why it does not"),
        ("error_description" = Option<String>, Query, description = "The same in words"),
        ("iss" = Option<String>, Query, description = "Who says so (RFC 9207)"),
    ),
    responses(
        (status = 303, description = "`Location` is where the browser wanted to go, and `Set-Cookie` starts the session; \
            or it is the page, which says why not"),
        (status = 401, description = "What the issuer has sent proves nothing"),
        (status = 403, description = "The issuer has refused, or whom it knows is no user here"),
        (status = 404, description = "There is no issuer"),
    ),
    security(())
)]
async fn finish(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    let oidc = issuer(&gateway)?;
    let text = |name| query.get(name).map(str::to_owned);
    let returned = Returned {
        state: text("state").unwrap_or_default(),
        code: text("code"),
        error: text("error"),
        description: text("error_description"),
        issuer: text("iss"),
    };
    let finished = oidc.finish(gateway.access(), &headers, returned).await;
    let answer = match finished {
        // The attempt goes on, if there is one: in another window, or at a gateway whose Redis answers.
        Err(refused @ (SignInRefused::Stale | SignInRefused::Redis(_))) => {
            return refuse(&gateway, &headers, refused);
        }
        Ok(finished) => match signed_in(&gateway, &headers, finished).await {
            Ok(answer) => Ok(answer),
            Err(problem) if problem.status() == StatusCode::TOO_MANY_REQUESTS => {
                tell(&headers, "often", problem)
            }
            Err(problem) => tell(&headers, "unavailable", problem),
        },
        Err(refused) => refuse(&gateway, &headers, refused),
    };
    let forget = AppendHeaders([(header::SET_COOKIE, oidc.forget())]);
    Ok((forget, answer).into_response())
}

/// The issuer of this gateway.
///
/// # Errors
/// 404.
pub(super) fn issuer(gateway: &Gateway) -> Result<&Oidc, Problem> {
    gateway.oidc().ok_or_else(|| {
        let none =
            "there is no issuer to sign in by: sign in with a name and a password, or a token";
        Problem::new(StatusCode::NOT_FOUND, none)
    })
}

async fn signed_in(
    gateway: &Gateway,
    headers: &HeaderMap,
    finished: Finished,
) -> Result<Response, Problem> {
    // Sessions that nobody needs are as many rows.
    let user = finished.user;
    gateway.limits().sign_in_as(&user.to_string()).await?;
    let principal = Principal::of_user(gateway.access(), user).await?;
    let client = finished.client.as_deref();
    let cookie = started(gateway, headers, &principal, client, "oidc").await?;
    let cookie = AppendHeaders([(header::SET_COOKIE, cookie)]);
    Ok((cookie, Redirect::to(&finished.return_to)).into_response())
}

fn refuse(
    gateway: &Gateway,
    headers: &HeaderMap,
    refused: SignInRefused,
) -> Result<Response, Problem> {
    if let Some(reason) = refused.denial() {
        gateway.access().meter().denied(reason);
    }
    tell(headers, refused.word(), refused.into())
}

/// Says why nobody is signed in: by the page, with this word, where a browser asks for one, else by the problem.
fn tell(headers: &HeaderMap, word: &str, problem: Problem) -> Result<Response, Problem> {
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
            SignInRefused::Redis(failure) => return failure.into(),
            SignInRefused::Store(failure) => return failure.into(),
            SignInRefused::Random(failure) => {
                error!(error = %failure, "nobody can sign in by OpenID Connect");
                let detail = "no sign-in can be begun";
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
            }
            SignInRefused::ReturnTo | SignInRefused::Stale | SignInRefused::OtherIssuer => {
                StatusCode::BAD_REQUEST
            }
            SignInRefused::Unproven => StatusCode::UNAUTHORIZED,
            SignInRefused::Denied | SignInRefused::Unverified | SignInRefused::Unknown => {
                StatusCode::FORBIDDEN
            }
            SignInRefused::Away => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refused.to_string())
    }
}
