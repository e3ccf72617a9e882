//! `/v1/webhooks`: webhooks that are notified of status changes, and their deliveries; for
//! administrators.
//!
//! The secret of a webhook is in the answer to the request that creates it, and nowhere else.

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

use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::extract::labels::checked_labels;
use crate::extract::path::path_id;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_store::webhook_deliveries::{Delivery, DeliveryFilter, PastAttempt};
use runcast_store::webhooks::{MAX_WEBHOOKS, NewWebhook, Webhook};
use runcast_webhooks::delivery::NOTIFIED_STATUSES;
use runcast_webhooks::signature;

/// Deliveries of one answer, without `limit`.
const DEFAULT_DELIVERIES: u16 = 50;

/// Deliveries of one answer, at most.
const MAX_DELIVERIES: u16 = 500;

/// Values of the parameter `state`.
const DELIVERY_STATES: [&str; 3] = ["waiting", "delivered", "dead"];

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
struct NewWebhookBody {
    url: Url,
    #[schema(schema_with = statuses)]
    on: Vec<String>,
    /// Only runs with all of these.
    #[serde(default)]
    #[schema(value_type = HashMap<String, String>)]
    labels: Map<String, Value>,
}

/// The statuses that a webhook can be notified of.
fn statuses() -> ArrayBuilder {
    let one = ObjectBuilder::new().schema_type(Type::String);
    let one = one.enum_values(Some(NOTIFIED_STATUSES));
    ArrayBuilder::new().items(one).min_items(Some(1))
}

/// Holds a secret, so it has no `Debug`.
#[derive(Serialize, ToSchema)]
struct CreatedWebhook {
    id: Uuid,
    /// Signs its deliveries, as Standard Webhooks specifies.
    secret: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct WebhookList {
    webhooks: Vec<Webhook>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DeliveryList {
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Serialize, ToSchema)]
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
    responses((status = 200, description = "All webhooks", body = WebhookList)),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(State(gateway): State<Gateway>) -> Result<Json<WebhookList>, Problem> {
    let webhooks = gateway.store().webhooks().await?;
    Ok(Json(WebhookList { webhooks }))
}

/// Creates a webhook.
#[utoipa::path(
    post,
    path = "/v1/webhooks",
    request_body = NewWebhookBody,
    responses(
        (status = 201, description = "The new webhook, with its secret, which no other answer repeats", body = CreatedWebhook),
        (status = 409, description = "The limit of webhooks is reached"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(body): StrictJson<NewWebhookBody>,
) -> Result<(StatusCode, Json<CreatedWebhook>), Problem> {
    let is_known = |status: &String| NOTIFIED_STATUSES.contains(&status.as_str());
    if body.on.is_empty() || !body.on.iter().all(is_known) {
        let known = NOTIFIED_STATUSES.join(", ");
        return Err(Problem::bad_request(format!(
            "on: expected some of {known}"
        )));
    }
    let checked = gateway.egress_policy().check(&body.url);
    checked.map_err(|refused| Problem::bad_request(format!("url: {refused}")))?;
    let secret = signature::new_secret().map_err(|error| {
        error!(%error, "no secret can be generated; the request is answered 500");
        Problem::internal("no secret could be generated")
    })?;
    let new = NewWebhook {
        url: body.url.as_str(),
        secret: &secret,
        statuses: &body.on,
        labels: &checked_labels(body.labels)?,
    };
    let Some(id) = gateway
        .store()
        .create_webhook(&principal.actor(), &new)
        .await?
    else {
        let detail = format!("there are {MAX_WEBHOOKS} webhooks, which is the limit: remove one");
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    };
    let secret = signature::encode_secret(&secret).expose().to_owned();
    Ok((StatusCode::CREATED, Json(CreatedWebhook { id, secret })))
}

/// Removes a webhook.
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{webhook}",
    responses((status = 204, description = "The webhook is removed")),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn remove(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let actor = principal.actor();
    let id = path_id("webhook", &id)?;
    found(gateway.store().remove_webhook(&actor, id).await?, id)
}

/// Enables a webhook.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{webhook}/enable",
    responses((status = 204, description = "The webhook gets notifications")),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn enable(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let actor = principal.actor();
    let id = path_id("webhook", &id)?;
    found(gateway.store().enable_webhook(&actor, id, true).await?, id)
}

/// Disables a webhook.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{webhook}/disable",
    responses((status = 204, description = "The webhook gets no notifications")),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn disable(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let actor = principal.actor();
    let id = path_id("webhook", &id)?;
    found(gateway.store().enable_webhook(&actor, id, false).await?, id)
}

/// Sends a test to a webhook; its delivery shows the result.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{webhook}/test",
    responses((status = 202, description = "A worker will send it", body = Tested)),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn test(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Tested>), Problem> {
    let actor = principal.actor();
    let id = path_id("webhook", &id)?;
    let delivery = gateway.store().test_webhook(&actor, id).await?;
    let delivery = delivery.ok_or_else(|| Problem::not_found("webhook", &id.to_string()))?;
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
    responses((status = 200, description = "The newest deliveries", body = DeliveryList)),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn deliveries(
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<DeliveryList>, Problem> {
    let state = query.get("state");
    if state.is_some_and(|state| !DELIVERY_STATES.contains(&state)) {
        let known = DELIVERY_STATES.join(", ");
        return Err(Problem::bad_request(format!(
            "parameter state: expected one of {known}"
        )));
    }
    let filter = DeliveryFilter {
        webhook: query.parse("webhook")?,
        state: state.map(str::to_owned),
        only: None,
        limit: query.limit(DEFAULT_DELIVERIES, MAX_DELIVERIES)?,
    };
    let deliveries = gateway.store().deliveries(&filter).await?;
    Ok(Json(DeliveryList { deliveries }))
}

/// Returns the body of a delivery, and all attempts to send it.
#[utoipa::path(
    get,
    path = "/v1/webhooks/deliveries/{delivery}",
    responses((status = 200, description = "Its body and attempts", body = DeliveryLog)),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn delivery(
    State(gateway): State<Gateway>,
    Path(text): Path<String>,
) -> Result<Json<DeliveryLog>, Problem> {
    let id = path_id("delivery", &text)?;
    let log = gateway.store().delivery_log(id).await?;
    let (body, attempts) = log.ok_or_else(|| Problem::not_found("delivery", &text))?;
    Ok(Json(DeliveryLog { body, attempts }))
}

/// Sends a delivery again that was delivered or is dead, with the same id.
#[utoipa::path(
    post,
    path = "/v1/webhooks/deliveries/{delivery}/replay",
    responses((status = 202, description = "A worker will send it")),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn replay(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let actor = principal.actor();
    let id = path_id("ended delivery", &text)?;
    match gateway
        .store()
        .replay_deliveries(&actor, Some(id), None)
        .await?
    {
        0 => Err(Problem::not_found("ended delivery", &text)),
        _ => Ok(StatusCode::ACCEPTED),
    }
}

fn found(found: bool, id: Uuid) -> Result<StatusCode, Problem> {
    if found {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::not_found("webhook", &id.to_string()))
}
