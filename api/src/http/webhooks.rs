//! `/v1/webhooks`: who is told of which changes of runs, and what was delivered; for administrators.
//!
//! A secret is in the answer to the request that makes a webhook, and nowhere else.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::error;
use url::Url;
use uuid::Uuid;

use super::Gateway;
use super::body::Object;
use super::problem::Problem;
use super::query::Query;
use super::runs;
use crate::access::Scope;
use crate::access::principal::Principal;
use crate::store::deliveries::{Delivery, DeliveryFilter, Tried};
use crate::store::webhooks::{MOST_WEBHOOKS, NewWebhook, Webhook};
use crate::tasks::webhooks::{STATUSES, sign};

/// Deliveries of one answer if nothing is said, and at most.
const SOME_DELIVERIES: u16 = 50;
const MOST_DELIVERIES: u16 = 500;

/// States that deliveries may be asked for by.
const STATES: [&str; 3] = ["waiting", "delivered", "dead"];

/// The routes of this file.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/v1/webhooks", get(list).post(create))
        .route("/v1/webhooks/deliveries", get(deliveries))
        .route("/v1/webhooks/deliveries/{delivery}", get(delivery))
        .route("/v1/webhooks/deliveries/{delivery}/replay", post(replay))
        .route("/v1/webhooks/{webhook}", axum::routing::delete(remove))
        .route("/v1/webhooks/{webhook}/enable", post(enable))
        .route("/v1/webhooks/{webhook}/disable", post(disable))
        .route("/v1/webhooks/{webhook}/test", post(test))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    url: Url,
    on: Vec<String>,
    #[serde(default)]
    labels: Map<String, Value>,
}

/// Holds a secret, so it cannot be printed.
#[derive(Serialize)]
struct Created {
    id: Uuid,
    secret: String,
}

#[derive(Debug, Serialize)]
struct List {
    webhooks: Vec<Webhook>,
}

#[derive(Debug, Serialize)]
struct Log {
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Serialize)]
struct One {
    body: String,
    attempts: Vec<Tried>,
}

#[derive(Debug, Serialize)]
struct Tested {
    delivery: Uuid,
}

async fn list(principal: Principal, State(gateway): State<Gateway>) -> Result<Json<List>, Problem> {
    principal.may(Scope::Admin, None)?;
    let webhooks = gateway.store().webhooks().await?;
    Ok(Json(List { webhooks }))
}

async fn create(
    principal: Principal,
    State(gateway): State<Gateway>,
    Object(create): Object<Create>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    principal.may(Scope::Admin, None)?;
    let known = |status: &String| STATUSES.contains(&status.as_str());
    if create.on.is_empty() || !create.on.iter().all(known) {
        let known = STATUSES.join(", ");
        return Err(Problem::bad_request(format!(
            "on: expected some of {known}"
        )));
    }
    let checked = gateway.webhooks_allowed().check(&create.url);
    checked.map_err(|refused| Problem::bad_request(format!("url: {refused}")))?;
    let secret = sign::new_secret().map_err(|failed| {
        error!(error = %failed, "no secret could be made");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no secret could be made")
    })?;
    let new = NewWebhook {
        url: create.url.as_str(),
        secret: &secret,
        statuses: &create.on,
        labels: &runs::labels(create.labels)?,
    };
    let Some(id) = gateway.store().create_webhook(&new).await? else {
        let detail = format!("there are {MOST_WEBHOOKS} webhooks, which is the limit: remove one");
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    };
    let secret = sign::shown(&secret).expose().to_owned();
    Ok((StatusCode::CREATED, Json(Created { id, secret })))
}

async fn remove(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = admit(&principal, &id)?;
    found(gateway.store().remove_webhook(id).await?, id)
}

async fn enable(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = admit(&principal, &id)?;
    found(gateway.store().enable_webhook(id, true).await?, id)
}

async fn disable(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = admit(&principal, &id)?;
    found(gateway.store().enable_webhook(id, false).await?, id)
}

/// A worker sends it; its delivery tells what came of it.
async fn test(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Tested>), Problem> {
    let id = admit(&principal, &id)?;
    let delivery = gateway.store().test_webhook(id).await?;
    let delivery = delivery.ok_or_else(|| missing("webhook", &id.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(Tested { delivery })))
}

/// Newest first; `?webhook=`, `?state=dead`, `?limit=`.
async fn deliveries(
    principal: Principal,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<Log>, Problem> {
    principal.may(Scope::Admin, None)?;
    let state = query.get("state");
    if state.is_some_and(|state| !STATES.contains(&state)) {
        let known = STATES.join(", ");
        return Err(Problem::bad_request(format!(
            "parameter state: expected one of {known}"
        )));
    }
    let limit: u16 = query.parse("limit")?.unwrap_or(SOME_DELIVERIES);
    let filter = DeliveryFilter {
        webhook: query.parse("webhook")?,
        state: state.map(str::to_owned),
        only: None,
        limit: limit.clamp(1, MOST_DELIVERIES),
    };
    let deliveries = gateway.store().deliveries(&filter).await?;
    Ok(Json(Log { deliveries }))
}

/// What a delivery sends, and all its attempts.
async fn delivery(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(text): Path<String>,
) -> Result<Json<One>, Problem> {
    principal.may(Scope::Admin, None)?;
    let unknown = || missing("delivery", &text);
    let id = Uuid::try_parse(&text).map_err(|_no_id| unknown())?;
    let found = gateway.store().delivery_log(id).await?;
    let (body, attempts) = found.ok_or_else(unknown)?;
    Ok(Json(One { body, attempts }))
}

/// Sends a delivery that has ended again, with the same id.
async fn replay(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    principal.may(Scope::Admin, None)?;
    let unknown = || missing("ended delivery", &text);
    let id = Uuid::try_parse(&text).map_err(|_no_id| unknown())?;
    match gateway.store().replay_deliveries(Some(id), None).await? {
        0 => Err(unknown()),
        _ => Ok(StatusCode::ACCEPTED),
    }
}

fn admit(principal: &Principal, text: &str) -> Result<Uuid, Problem> {
    principal.may(Scope::Admin, None)?;
    Uuid::try_parse(text).map_err(|_no_id| missing("webhook", text))
}

fn missing(what: &str, id: &str) -> Problem {
    let shown: String = id.chars().take(64).collect();
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {what} {shown}"))
}

fn found(found: bool, id: Uuid) -> Result<StatusCode, Problem> {
    if found {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(missing("webhook", &id.to_string()))
}
