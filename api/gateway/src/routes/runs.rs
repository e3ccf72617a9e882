//! `/v1/runs`: create a run, list runs, read one, and get what an agent needs to publish to one.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use runcast_common::presence::run_update::{self, RunUpdate, UpdateKind};
use runcast_common::protocol::append_calls::PROTOCOL_VERSION;
use runcast_common::protocol::limits::{MAX_NAME_BYTES, MAX_VARIATIONS};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;
use tracing::debug;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::run_access::find_run;
use crate::Gateway;
use crate::direct_redis::RedisAccess;
use crate::extract::caller::Caller;
use crate::extract::credential::PresentedSecret;
use crate::extract::json::StrictJson;
use crate::extract::labels::{checked_labels, label_filter};
use crate::extract::page::PageSize;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::secret::Secret;
use runcast_store::runs::{NewRun, Run, RunFilter};

const PAGE_RUNS: PageSize = PageSize {
    default: 50,
    max: 200,
};

/// Longest wait for Redis to announce a new run. The run is created without it, too.
const ANNOUNCE_DEADLINE: Duration = Duration::from_millis(500);

/// Longest idempotency key.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 200;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one))
        .routes(routes!(publish))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewRun)]
#[serde(deny_unknown_fields)]
struct NewRunBody {
    #[serde(default)]
    /// At most 200 bytes.
    #[schema(max_length = 200)]
    name: String,
    /// The number of parallel attempts.
    #[serde(default = "one_variation")]
    #[schema(minimum = 1, maximum = 256)]
    variations: u16,
    #[serde(default)]
    #[schema(value_type = HashMap<String, String>)]
    labels: Map<String, Value>,
}

const fn one_variation() -> u16 {
    1
}

/// Holds credentials, as [`RedisAccess`] does: neither has `Debug`.
#[derive(Serialize, ToSchema)]
struct CreatedRun {
    run: Run,
    /// Publishes to this run, and reads it, as far as the caller may. It ends with the credential
    /// of the caller, and 15 minutes after the run was sealed.
    token: String,
    /// The address of its page.
    url: String,
    /// The version of the protocol by which agents publish here.
    protocol: u32,
    /// Absent where agents publish through the gateway alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisAccess>,
}

#[derive(Serialize, ToSchema)]
struct PublishAccess {
    run: Run,
    /// Publishes to this run, and reads it, as far as the caller may. It ends with the credential
    /// of the caller, and 15 minutes after the run was sealed. The caller gets the same token
    /// again; a token of this run gets itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The address of its page.
    url: String,
    /// The version of the protocol by which agents publish here.
    protocol: u32,
    /// Absent where agents publish through the gateway alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisAccess>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RunList {
    runs: Vec<Run>,
    /// The `before` of the next page.
    next: Option<Uuid>,
}

/// Creates a run.
///
/// A second request with the same `Idempotency-Key` answers the run that the first one created.
#[utoipa::path(
    post,
    path = "/v1/runs",
    params(("Idempotency-Key" = Option<String>, Header, max_length = 200)),
    request_body = NewRunBody,
    responses(
        (status = 201, description = "The new run, with all that its agents need", body = CreatedRun),
        (status = 200, description = "The run that this key created before", body = CreatedRun),
    ),
    security(("bearer" = [Scope::Publish])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn create(
    Caller(principal): Caller,
    PresentedSecret(credential): PresentedSecret,
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    StrictJson(body): StrictJson<NewRunBody>,
) -> Result<(StatusCode, Json<CreatedRun>), Problem> {
    let forbidden = || Problem::forbidden("a token of a run creates no runs");
    if principal.is_of_run() {
        return Err(forbidden());
    }
    let labels = checked_labels(body.labels)?;
    principal.may_create(&labels)?;
    let new = NewRun {
        name: checked_name(body.name)?,
        variations: checked_variations(body.variations)?,
        labels,
        created_by: principal.actor(),
        idempotency_key: idempotency_key(&headers)?,
    };
    let (run, is_new) = gateway.store().create_run(&new).await?;
    if is_new {
        announce(&gateway, &run).await;
    } else {
        // The run may have other labels, and the principal other rights, than when it was created:
        // a token for it needs the rights of now.
        let labels = run.labels.as_object().cloned().unwrap_or_default();
        principal.may_with(Scope::Publish, run.id, &labels)?;
    }
    let access = gateway.access();
    let token = access.run_token(&principal, &credential, run.id).await?;
    let token = token.ok_or_else(forbidden)?;
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let created = CreatedRun {
        redis: redis_access(&gateway, run.id, Some(&token)).await,
        url: page_url(&gateway, run.id),
        token: token.expose().to_owned(),
        protocol: PROTOCOL_VERSION,
        run,
    };
    Ok((status, Json(created)))
}

/// Lists runs, newest first.
///
/// A principal that may read some runs gets a list of those.
#[utoipa::path(
    get,
    path = "/v1/runs",
    params(
        ("status" = Option<String>, Query),
        ("label" = Option<Vec<String>>, Query, description = "`NAME=VALUE`; only runs with all of them"),
        ("before" = Option<Uuid>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "50, and 200 at most"),
    ),
    responses((status = 200, description = "A page of runs", body = RunList)),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<RunList>, Problem> {
    let visible = principal.visible(Scope::Read)?;
    let page = PAGE_RUNS.limit(&query)?;
    let filter = RunFilter {
        before: query.parse("before")?,
        status: query.get("status").map(str::to_owned),
        labels: label_filter(&query)?,
        visible,
        limit: page.rows_to_read(),
    };
    let mut runs = gateway.store().runs(&filter).await?;
    let next = page.cut(&mut runs, |run| run.id);
    Ok(Json(RunList { runs, next }))
}

/// Reads one run.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}",
    responses((status = 200, description = "The run", body = Run)),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn one(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<Run>, Problem> {
    let run = find_run(&gateway, &principal, Scope::Read, &id).await?;
    Ok(Json(run))
}

/// Returns what an agent needs to publish to an existing run.
#[utoipa::path(
    post,
    path = "/v1/runs/{run}/publish",
    responses((status = 200, description = "What an agent needs", body = PublishAccess)),
    security(("bearer" = [Scope::Publish])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn publish(
    Caller(principal): Caller,
    PresentedSecret(credential): PresentedSecret,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<PublishAccess>, Problem> {
    let run = find_run(&gateway, &principal, Scope::Publish, &id).await?;
    let access = gateway.access();
    let token = access.run_token(&principal, &credential, run.id).await?;
    Ok(Json(PublishAccess {
        redis: redis_access(&gateway, run.id, token.as_ref()).await,
        url: page_url(&gateway, run.id),
        protocol: PROTOCOL_VERSION,
        token: token.map(|token| token.expose().to_owned()),
        run,
    }))
}

/// Announces a new run to viewers of the feed. If that fails, they still have the list to read.
async fn announce(gateway: &Gateway, run: &Run) {
    let update = RunUpdate {
        kind: UpdateKind::State,
        run: run.id,
        status: run.status.clone(),
        ended: false,
        sealed: false,
        missing: 0,
        agents: Vec::new(),
        redacted: false,
    };
    let updates = [update];
    let announced = run_update::publish_to_feed(gateway.redis(), gateway.keys(), &updates);
    if let Ok(Err(error)) = timeout(ANNOUNCE_DEADLINE, announced).await {
        debug!(%error, "could not announce a new run");
    }
}

fn page_url(gateway: &Gateway, run: Uuid) -> String {
    format!("{}#/runs/{run}", gateway.public_url())
}

async fn redis_access(gateway: &Gateway, run: Uuid, token: Option<&Secret>) -> Option<RedisAccess> {
    gateway.publish_redis()?.access(token?, run).await
}

fn checked_name(name: String) -> Result<String, Problem> {
    if name.len() > MAX_NAME_BYTES {
        let detail = format!(
            "name of {} bytes is over the limit of {MAX_NAME_BYTES}",
            name.len()
        );
        return Err(Problem::bad_request(detail));
    }
    if name.contains('\0') {
        return Err(Problem::bad_request("name contains a NUL character"));
    }
    Ok(if name.trim().is_empty() {
        "unnamed".to_owned()
    } else {
        name
    })
}

fn checked_variations(count: u16) -> Result<u16, Problem> {
    if (1..=MAX_VARIATIONS).contains(&count) {
        return Ok(count);
    }
    Err(Problem::bad_request(format!(
        "variations must be from 1 to {MAX_VARIATIONS}, not {count}"
    )))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad_request(format!(
            "Idempotency-Key must be 1 to {MAX_IDEMPOTENCY_KEY_BYTES} ASCII characters"
        ))),
    }
}
