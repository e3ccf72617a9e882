//! `/v1/tokens`: tokens for programs and agents. A token is in the answer to the request that makes it, and nowhere else.
//!
//! A user makes tokens that never may more than the user may at the moment they are used. A token makes others only if it
//! holds `admin`, so that one that has leaked cannot outlive itself; and without it, it revokes none but itself.

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

use super::runs::labels;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_access::secret::{self, TokenRequest};
use runcast_store::tokens::Token;

/// Tokens of one page if nothing is said, and at most.
const PAGE_TOKENS: u16 = 50;
const MAX_PAGE_TOKENS: u16 = 200;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tokens)]
struct Tokens {
    tokens: Vec<Token>,
    next: Option<Uuid>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
struct Create {
    name: String,
    scopes: Vec<String>,
    run: Option<Uuid>,
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    labels: Option<Map<String, Value>>,
    expires_at: Option<DateTime<Utc>>,
}

/// Holds a secret, so it cannot be printed.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedToken)]
struct CreatedToken {
    id: Uuid,
    token: String,
}

/// Lists one's own tokens, newest first, or those of all for administrators.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    params(
        ("all" = Option<bool>, Query, description = "Those of all, for administrators"),
        ("before" = Option<Uuid>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "Tokens: 50, and 200 at most"),
    ),
    responses(
        (status = 200, description = "A page of them", body = Tokens),
    ),
    security(("bearer" = []))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<Tokens>, Problem> {
    let of = match (query.flag("all")?, principal.user) {
        (true, _) | (false, None) => {
            principal.may(Scope::Admin, None)?;
            None
        }
        (false, own) => own,
    };
    let limit = query.limit(PAGE_TOKENS, MAX_PAGE_TOKENS)?;
    let before = query.parse("before")?;
    // One more than asked for says whether there is a next page.
    let mut tokens = gateway.store().tokens(of, before, limit + 1).await?;
    let more = tokens.len() > usize::from(limit);
    tokens.truncate(usize::from(limit));
    let next = tokens.last().map(|last| last.id).filter(|_| more);
    Ok(Json(Tokens { tokens, next }))
}

/// Makes a token. It is in this answer, and nowhere else.
///
/// That of a user never may more than the user may when it is used. A token makes others only if it holds `admin`, so that
/// one that has leaked cannot outlive itself.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    request_body = Create,
    responses(
        (status = 201, description = "The token", body = CreatedToken),
    ),
    security(("bearer" = []))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(create): StrictJson<Create>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    if principal.by_token {
        principal.may(Scope::Admin, None)?;
    }
    let scopes = scopes(&principal, &create.scopes)?;
    let is_name = (1..=MAX_NAME_BYTES).contains(&create.name.len());
    if !is_name || create.name.contains('\0') {
        return Err(Problem::bad_request(format!(
            "name: expected 1 to {MAX_NAME_BYTES} bytes without NUL"
        )));
    }
    if create.expires_at.is_some_and(|at| at <= Utc::now()) {
        return Err(Problem::bad_request("expires_at: this has passed already"));
    }
    let store = gateway.store();
    if let Some(run) = create.run
        && store.run_labels(run).await?.is_none()
    {
        return Err(Problem::no_such_run(&run.to_string()));
    }
    let bound = create.labels.map(labels).transpose()?;
    let wanted = TokenRequest {
        name: &create.name,
        scopes: &scopes,
        run: create.run,
        labels: bound.as_ref(),
        user: principal.user,
        expires_at: create.expires_at,
    };
    let (id, token) = secret::issue_token(store, &principal.actor(), &wanted).await?;
    let token = token.expose().to_owned();
    Ok((StatusCode::CREATED, Json(CreatedToken { id, token })))
}

/// What a token would not hold anyway is refused, so that nobody wonders.
fn scopes(principal: &Principal, names: &[String]) -> Result<Vec<Scope>, Problem> {
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
        return Err(Problem::bad_request("scopes: expected one at least"));
    }
    Ok(scopes)
}

/// Revokes one's own token, or any for administrators; it is refused everywhere from this answer on.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{token}",
    responses(
        (status = 204, description = "It is revoked"),
        (status = 404, description = "There is no such token of whoever asks"),
    ),
    security(("bearer" = []))
)]
async fn revoke(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let missing = || {
        let shown: String = text.chars().take(64).collect();
        Problem::new(StatusCode::NOT_FOUND, format!("there is no token {shown}"))
    };
    let id = Uuid::try_parse(&text).map_err(|_no_id| missing())?;
    let of = match principal.user {
        _ if principal.holds(Scope::Admin) => None,
        // Whoever holds a token may end it, and no other: not those of its owner either.
        _ if principal.by_token && principal.id == id => None,
        Some(user) if !principal.by_token => Some(user),
        _ => return Err(missing()),
    };
    let (store, actor) = (gateway.store(), principal.actor());
    if !store.revoke_token(&actor, id, of).await? {
        return Err(missing());
    }
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}
