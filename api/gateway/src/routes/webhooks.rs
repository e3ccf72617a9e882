//! `/v1/webhooks`: who is told of which changes of runs, and what was delivered; for administrators.
//!
//! A secret is in the answer to the request that makes a webhook, and nowhere else.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::error;
use url::Url;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::runs;
use crate::Gateway;
use crate::extract::json::StrictJson;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::webhook_deliveries::{Delivery, DeliveryFilter, PastAttempt};
use runcast_store::webhooks::{MOST_WEBHOOKS, NewWebhook, Webhook};
use runcast_webhooks::delivery::STATUSES;
use runcast_webhooks::signature;

/// Deliveries of one answer if nothing is said, and at most.
const SOME_DELIVERIES: u16 = 50;
const MOST_DELIVERIES: u16 = 500;

/// States that deliveries may be asked for by.
const STATES: [&str; 3] = ["waiting", "delivered", "dead"];

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(deliveries))
        .routes(routes!(delivery))
        .routes(routes!(replay))
        .routes(routes!(remove))
        .routes(routes!(enable))
        .routes(routes!(disable))
        .routes(routes!(test))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewWebhook)]
#[serde(deny_unknown_fields)]
struct Create {
    url: Url,
    #[schema(schema_with = statuses)]
    on: Vec<String>,
    /// Only runs with all of these.
    #[serde(default)]
    #[schema(value_type = HashMap<String, String>)]
    labels: Map<String, Value>,
}

/// What a webhook may be told of.
fn statuses() -> ArrayBuilder {
    let one = ObjectBuilder::new().schema_type(Type::String);
    let one = one.enum_values(Some(STATUSES));
    ArrayBuilder::new().items(one).min_items(Some(1))
}

/// Holds a secret, so it cannot be printed.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedWebhook)]
struct CreatedWebhook {
    id: Uuid,
    /// What its deliveries are signed with, by the standard of webhooks.
    secret: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookList)]
struct WebhookList {
    webhooks: Vec<Webhook>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryList)]
struct DeliveryList {
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryLog)]
struct DeliveryLog {
    body: String,
    attempts: Vec<PastAttempt>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Tested {
    delivery: Uuid,
}

/// Lists webhooks.
#[utoipa::path(
    get,
    path = "/v1/webhooks",
    responses((status = 200, description = "All of them", body = WebhookList)),
    security(("bearer" = [Scope::Admin]))
)]
async fn list(State(gateway): State<Gateway>) -> Result<Json<WebhookList>, Problem> {
    let webhooks = gateway.store().webhooks().await?;
    Ok(Json(WebhookList { webhooks }))
}

/// Makes a webhook.
#[utoipa::path(
    post,
    path = "/v1/webhooks",
    request_body = Create,
    responses(
        (status = 201, description = "It is there; its secret is told here alone", body = CreatedWebhook),
        (status = 409, description = "There are as many as there may be"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn create(
    State(gateway): State<Gateway>,
    StrictJson(create): StrictJson<Create>,
) -> Result<(StatusCode, Json<CreatedWebhook>), Problem> {
    let known = |status: &String| STATUSES.contains(&status.as_str());
    if create.on.is_empty() || !create.on.iter().all(known) {
        let known = STATUSES.join(", ");
        return Err(Problem::bad_request(format!(
            "on: expected some of {known}"
        )));
    }
    let checked = gateway.webhooks_allowed().check(&create.url);
    checked.map_err(|refused| Problem::bad_request(format!("url: {refused}")))?;
    let secret = signature::new_secret().map_err(|failed| {
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
    let secret = signature::shown(&secret).expose().to_owned();
    Ok((StatusCode::CREATED, Json(CreatedWebhook { id, secret })))
}

/// Removes a webhook.
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{webhook}",
    responses((status = 204, description = "It is gone")),
    security(("bearer" = [Scope::Admin]))
)]
async fn remove(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = webhook_id(&id)?;
    found(gateway.store().remove_webhook(id).await?, id)
}

/// Lets a webhook be told again.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{webhook}/enable",
    responses((status = 204, description = "It will be told")),
    security(("bearer" = [Scope::Admin]))
)]
async fn enable(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = webhook_id(&id)?;
    found(gateway.store().enable_webhook(id, true).await?, id)
}

/// Lets a webhook be told of nothing.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{webhook}/disable",
    responses((status = 204, description = "It will not be told")),
    security(("bearer" = [Scope::Admin]))
)]
async fn disable(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = webhook_id(&id)?;
    found(gateway.store().enable_webhook(id, false).await?, id)
}

/// Sends a test to a webhook; its delivery tells what came of it.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{webhook}/test",
    responses((status = 202, description = "A worker sends it", body = Tested)),
    security(("bearer" = [Scope::Admin]))
)]
async fn test(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Tested>), Problem> {
    let id = webhook_id(&id)?;
    let delivery = gateway.store().test_webhook(id).await?;
    let delivery = delivery.ok_or_else(|| missing("webhook", &id.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(Tested { delivery })))
}

/// Lists deliveries, newest first.
#[utoipa::path(
    get,
    path = "/v1/webhooks/deliveries",
    params(
        ("webhook" = Option<Uuid>, Query),
        ("state" = Option<String>, Query, description = "`waiting`, `delivered` or `dead`"),
        ("limit" = Option<u64>, Query, description = "50, and 500 at most"),
    ),
    responses((status = 200, description = "The newest", body = DeliveryList)),
    security(("bearer" = [Scope::Admin]))
)]
async fn deliveries(
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<DeliveryList>, Problem> {
    let state = query.get("state");
    if state.is_some_and(|state| !STATES.contains(&state)) {
        let known = STATES.join(", ");
        return Err(Problem::bad_request(format!(
            "parameter state: expected one of {known}"
        )));
    }
    let filter = DeliveryFilter {
        webhook: query.parse("webhook")?,
        state: state.map(str::to_owned),
        only: None,
        limit: query.limit(SOME_DELIVERIES, MOST_DELIVERIES)?,
    };
    let deliveries = gateway.store().deliveries(&filter).await?;
    Ok(Json(DeliveryList { deliveries }))
}

/// Tells what a delivery sends, and all its attempts.
#[utoipa::path(
    get,
    path = "/v1/webhooks/deliveries/{delivery}",
    responses((status = 200, description = "Its body and attempts", body = DeliveryLog)),
    security(("bearer" = [Scope::Admin]))
)]
async fn delivery(
    State(gateway): State<Gateway>,
    Path(text): Path<String>,
) -> Result<Json<DeliveryLog>, Problem> {
    let unknown = || missing("delivery", &text);
    let id = Uuid::try_parse(&text).map_err(|_no_id| unknown())?;
    let found = gateway.store().delivery_log(id).await?;
    let (body, attempts) = found.ok_or_else(unknown)?;
    Ok(Json(DeliveryLog { body, attempts }))
}

/// Sends a delivery that has ended again, with the same id.
#[utoipa::path(
    post,
    path = "/v1/webhooks/deliveries/{delivery}/replay",
    responses((status = 202, description = "A worker sends it")),
    security(("bearer" = [Scope::Admin]))
)]
async fn replay(
    State(gateway): State<Gateway>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let unknown = || missing("ended delivery", &text);
    let id = Uuid::try_parse(&text).map_err(|_no_id| unknown())?;
    match gateway.store().replay_deliveries(Some(id), None).await? {
        0 => Err(unknown()),
        _ => Ok(StatusCode::ACCEPTED),
    }
}

fn webhook_id(text: &str) -> Result<Uuid, Problem> {
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
