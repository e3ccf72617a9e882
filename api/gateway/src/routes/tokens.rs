//! `/v1/tokens`: tokens for programs and agents. A token is in the answer to the request that
//! creates it, and nowhere else.
//!
//! A token of a user may never do more than the user may at the moment it is used. A token creates
//! others only with the scope `admin`, so that a leaked token cannot outlive itself. Without that
//! scope it revokes no token but itself, and the tokens of runs that come from it.
//!
//! Tokens that are issued for a run (`POST /v1/runs`, `POST /v1/runs/{run}/publish`) are listed and
//! revoked by their run: `?run=`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use runcast_common::protocol::limits::MAX_NAME_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::extract::labels::checked_labels;
use crate::extract::page::PageSize;
use crate::extract::path::path_id;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_access::secret::{self, TokenRequest};
use runcast_store::tokens::{Manager, Token, TokenFilter};

const PAGE_TOKENS: PageSize = PageSize {
    default: 50,
    max: 200,
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list, create, revoke_of_run))
        .routes(routes!(revoke))
}

#[derive(Debug, Serialize, ToSchema)]
struct Tokens {
    tokens: Vec<Token>,
    next: Option<Uuid>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    scopes: Vec<String>,
    run: Option<Uuid>,
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    labels: Option<Map<String, Value>>,
    expires_at: Option<DateTime<Utc>>,
}

/// Holds a secret, so it has no `Debug`.
#[derive(Serialize, ToSchema)]
struct CreatedToken {
    id: Uuid,
    token: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct RevokedTokens {
    /// How many were revoked now.
    revoked: u64,
}

/// Lists the own tokens, newest first; for administrators also those of all users.
///
/// Tokens that are issued for a run are only listed by their run: those that come from the caller,
/// and all of the run for administrators.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    params(
        ("all" = Option<bool>, Query, description = "The tokens of all users, for administrators"),
        ("run" = Option<Uuid>, Query, description = "The tokens that are for this run alone"),
        ("before" = Option<Uuid>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "Tokens: 50, and 200 at most"),
    ),
    responses(
        (status = 200, description = "A page of tokens", body = Tokens),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<Tokens>, Problem> {
    let run = query.parse("run")?;
    let is_all = query.flag("all")?;
    let own = match run {
        Some(_) => Some(manager_of(&principal)),
        None => principal.user.map(Manager::User),
    };
    let manager = match own {
        Some(own) if !is_all => own,
        _ => {
            principal.may(Scope::Admin, None)?;
            Manager::Admin
        }
    };
    let page = PAGE_TOKENS.limit(&query)?;
    let filter = TokenFilter {
        manager,
        run,
        before: query.parse("before")?,
        limit: page.rows_to_read(),
    };
    let mut tokens = gateway.store().tokens(&filter).await?;
    let next = page.cut(&mut tokens, |token| token.id);
    Ok(Json(Tokens { tokens, next }))
}

/// Creates a token. It is in this answer, and nowhere else.
///
/// A token of a user may never do more than the user may when it is used. A token creates others
/// only with the scope `admin`, so that a leaked token cannot outlive itself.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    request_body = NewToken,
    responses(
        (status = 201, description = "The token", body = CreatedToken),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(body): StrictJson<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    if principal.by_token {
        principal.may(Scope::Admin, None)?;
    }
    let scopes = checked_scopes(&principal, &body.scopes)?;
    let is_name = (1..=MAX_NAME_BYTES).contains(&body.name.len());
    if !is_name || body.name.contains('\0') {
        return Err(Problem::bad_request(format!(
            "name: expected 1 to {MAX_NAME_BYTES} bytes without NUL"
        )));
    }
    if body.expires_at.is_some_and(|at| at <= Utc::now()) {
        return Err(Problem::bad_request(
            "expires_at: expected a time in the future",
        ));
    }
    let store = gateway.store();
    if let Some(run) = body.run
        && store.run_labels(run).await?.is_none()
    {
        return Err(Problem::not_found("run", &run.to_string()));
    }
    let labels = body.labels.map(checked_labels).transpose()?;
    let request = TokenRequest {
        name: &body.name,
        scopes: &scopes,
        run: body.run,
        labels: labels.as_ref(),
        user: principal.user,
        expires_at: body.expires_at,
    };
    let (id, token) = secret::issue_token(store, &principal.actor(), &request).await?;
    let token = token.expose().to_owned();
    Ok((StatusCode::CREATED, Json(CreatedToken { id, token })))
}

/// Parses the scopes of a new token. One that the principal does not hold is refused: the token
/// would never have it.
fn checked_scopes(principal: &Principal, names: &[String]) -> Result<Vec<Scope>, Problem> {
    let mut scopes = Vec::new();
    for name in names {
        let scope: Scope = name
            .parse()
            .map_err(|expected| Problem::bad_request(format!("scopes: {expected}")))?;
        if !principal.holds(scope) {
            return Err(Problem::forbidden(format!(
                "a token cannot have the scope {scope}, which you do not hold yourself"
            )));
        }
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if scopes.is_empty() {
        return Err(Problem::bad_request("scopes: expected at least one"));
    }
    Ok(scopes)
}

/// Revokes an own token, or one of a run that comes from the caller; for administrators any. From
/// this answer on all gateways refuse it.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{token}",
    responses(
        (status = 204, description = "The token is revoked"),
        (status = 404, description = "There is no such token of the caller"),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn revoke(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = path_id("token", &text)?;
    let (store, actor) = (gateway.store(), principal.actor());
    let manager = manager_of(&principal);
    if !store.revoke_token(&actor, id, manager).await? {
        return Err(Problem::not_found("token", &text));
    }
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes the tokens that are for one run alone: those that come from the caller, and all for
/// administrators. From this answer on all gateways refuse them.
///
/// Agents that publish with another token go on, and the credentials that got the tokens may get
/// new ones.
#[utoipa::path(
    delete,
    path = "/v1/tokens",
    params(
        ("run" = Uuid, Query, description = "The run"),
    ),
    responses(
        (status = 200, description = "How many were revoked", body = RevokedTokens),
    ),
    security(("bearer" = [])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn revoke_of_run(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<RevokedTokens>, Problem> {
    let run = query
        .parse("run")?
        .ok_or_else(|| Problem::bad_request("parameter run: expected the id of a run"))?;
    let (store, actor) = (gateway.store(), principal.actor());
    let manager = manager_of(&principal);
    let revoked = store.revoke_tokens_of_run(&actor, run, manager).await?;
    gateway.access().settle().await;
    Ok(Json(RevokedTokens { revoked }))
}

/// What a caller manages. A token manages itself and what comes from it: not the other tokens of
/// its owner.
fn manager_of(principal: &Principal) -> Manager {
    match principal.user {
        _ if principal.holds(Scope::Admin) => Manager::Admin,
        Some(user) if !principal.by_token => Manager::User(user),
        _ => Manager::Token(principal.id),
    }
}
