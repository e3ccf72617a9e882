//! `/v1/runs`: create, list, one, and how to publish to it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use runcast_common::presence::run_update::{self, RunUpdate, UpdateKind};
use runcast_common::protocol::limits::{
    MAX_LABEL_BYTES, MAX_LABELS, MAX_NAME_BYTES, MAX_VARIATIONS,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;
use tracing::debug;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_access::secret;
use runcast_store::runs::{Coverage, NewRun, Run, RunFilter};

/// Runs of one page if nothing is said, and at most.
const PAGE_RUNS: u16 = 50;
const MAX_PAGE_RUNS: u16 = 200;

/// Longest wait for Redis to take the news of a new run: without it creating goes on all the same.
const ANNOUNCE_DEADLINE: Duration = Duration::from_millis(500);

/// Longest idempotency key in bytes.
const MAX_KEY_BYTES: usize = 200;

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
struct Create {
    #[serde(default)]
    /// At most 200 bytes.
    #[schema(max_length = 200)]
    name: String,
    /// Its parallel attempts.
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

/// How an agent reaches Redis. Holds credentials, as does [`CreatedRun`]: neither can be printed.
#[derive(Serialize, ToSchema)]
struct RedisAccess {
    /// With user and password.
    url: String,
    /// Certificates of the authorities that sign for it, as PEM, where the platform's do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    /// What the names of all keys begin with.
    prefix: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CreatedRun)]
struct CreatedRun {
    run: Run,
    /// Publishes to this run, and reads it.
    token: String,
    /// Its page.
    url: String,
    redis: RedisAccess,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PublishAccess)]
struct PublishAccess {
    run: Run,
    /// Its page.
    url: String,
    redis: RedisAccess,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunList)]
struct RunList {
    runs: Vec<Run>,
    /// The `before` of the next page.
    next: Option<Uuid>,
}

/// Creates a run.
///
/// A second request with the same `Idempotency-Key` answers the run that the first one made.
#[utoipa::path(
    post,
    path = "/v1/runs",
    params(("Idempotency-Key" = Option<String>, Header, max_length = 200)),
    request_body = Create,
    responses(
        (status = 201, description = "It is there, with all that its agents need", body = CreatedRun),
        (status = 200, description = "It was there, made with this key", body = CreatedRun),
    ),
    security(("bearer" = [Scope::Publish]))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    StrictJson(create): StrictJson<Create>,
) -> Result<(StatusCode, Json<CreatedRun>), Problem> {
    let labels = labels(create.labels)?;
    principal.may_create(&labels)?;
    let new = NewRun {
        name: name(create.name)?,
        variations: variations(create.variations)?,
        labels,
        created_by: principal.id.to_string(),
        idempotency_key: idempotency_key(&headers)?,
    };
    let (run, is_new) = gateway.store().create_run(&new).await?;
    if is_new {
        announce(&gateway, &run).await;
    } else {
        // Made when one might do other things, or with other labels: a token for it is a matter of what holds now.
        let labels = run.labels.as_object().cloned().unwrap_or_default();
        principal.may_with(Scope::Publish, run.id, &labels)?;
    }
    let token = secret::mint_publish(gateway.store(), &principal.actor(), run.id).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let created = CreatedRun {
        url: page_url(&gateway, run.id),
        token: token.expose().to_owned(),
        redis: redis_access(&gateway),
        run,
    };
    Ok((status, Json(created)))
}

/// Lists runs, newest first.
///
/// A token that is bound to a run sees that one.
#[utoipa::path(
    get,
    path = "/v1/runs",
    params(
        ("status" = Option<String>, Query),
        ("label" = Option<Vec<String>>, Query, description = "`NAME=VALUE`; only runs with all of them"),
        ("before" = Option<Uuid>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u64>, Query, description = "50, and 200 at most"),
    ),
    responses((status = 200, description = "A page of them", body = RunList)),
    security(("bearer" = [Scope::Read]))
)]
async fn list(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
) -> Result<Json<RunList>, Problem> {
    // Who may see some runs gets a list of those.
    let visible = principal.visible(Scope::Read)?;
    let limit = query.limit(PAGE_RUNS, MAX_PAGE_RUNS)?;
    let filter = RunFilter {
        before: query.parse("before")?,
        status: query.get("status").map(str::to_owned),
        labels: wanted_labels(&query)?,
        visible,
        limit: limit + 1,
    };
    let mut runs = gateway.store().runs(&filter).await?;
    // One more than asked for says whether there is a next page.
    let more = runs.len() > usize::from(limit);
    runs.truncate(usize::from(limit));
    let next = runs.last().map(|run| run.id).filter(|_| more);
    Ok(Json(RunList { runs, next }))
}

/// One run.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}",
    responses((status = 200, description = "How it stands", body = Run)),
    security(("bearer" = [Scope::Read]))
)]
async fn one(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<Run>, Problem> {
    Ok(Json(find(&gateway, &principal, Scope::Read, &id).await?))
}

/// How an agent reaches Redis to publish for a run that is there.
#[utoipa::path(
    post,
    path = "/v1/runs/{run}/publish",
    responses((status = 200, description = "What an agent needs beside its token", body = PublishAccess)),
    security(("bearer" = [Scope::Publish]))
)]
async fn publish(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<PublishAccess>, Problem> {
    let run = find(&gateway, &principal, Scope::Publish, &id).await?;
    Ok(Json(PublishAccess {
        url: page_url(&gateway, run.id),
        redis: redis_access(&gateway),
        run,
    }))
}

/// Tells whoever follows all runs that there is a new one. They have a list to ask as well.
async fn announce(gateway: &Gateway, run: &Run) {
    let update = RunUpdate {
        kind: UpdateKind::State,
        run: run.id,
        status: run.status.clone(),
        ended: false,
        sealed: false,
        missing: 0,
        agents: Vec::new(),
    };
    let updates = [update];
    let told = run_update::announce(gateway.redis(), gateway.keys(), &updates);
    if let Ok(Err(error)) = timeout(ANNOUNCE_DEADLINE, told).await {
        debug!(%error, "a new run was not announced");
    }
}

/// The run that a path names, if it exists and the principal may see it.
///
/// # Errors
/// 404 or 403.
pub(super) async fn find(
    gateway: &Gateway,
    principal: &Principal,
    scope: Scope,
    id: &str,
) -> Result<Run, Problem> {
    let run = run_id(id)?;
    allow(gateway, principal, scope, run).await?;
    gateway
        .store()
        .run(run)
        .await?
        .ok_or_else(|| Problem::no_such_run(id))
}

/// The run that a path names and how far it is stored, if it exists and the principal may do this
/// with it.
///
/// # Errors
/// 404 or 403.
pub(super) async fn admit(
    gateway: &Gateway,
    principal: &Principal,
    scope: Scope,
    id: &str,
) -> Result<(Uuid, Coverage), Problem> {
    let run = run_id(id)?;
    allow(gateway, principal, scope, run).await?;
    let coverage = gateway.store().coverage(run).await?;
    Ok((run, coverage.ok_or_else(|| Problem::no_such_run(id))?))
}

/// Checks that the principal may do this with a run, by its labels where they decide. Out of bounds is what is not
/// there as well as what is there: who may not see a run does not learn whether there is one.
///
/// # Errors
/// 403.
pub(super) async fn allow(
    gateway: &Gateway,
    principal: &Principal,
    scope: Scope,
    run: Uuid,
) -> Result<(), Problem> {
    if !principal.asks_labels(scope, run) {
        return Ok(principal.may(scope, Some(run))?);
    }
    let labels = gateway.labels().of(run).await?.unwrap_or_default();
    Ok(principal.may_with(scope, run, &labels)?)
}

/// The id in a path. What is no id names no run.
///
/// # Errors
/// 404.
fn run_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_not_an_id| {
        let shown: String = text.chars().take(64).collect();
        Problem::no_such_run(&shown)
    })
}

fn page_url(gateway: &Gateway, run: Uuid) -> String {
    format!("{}#/runs/{run}", gateway.public_url())
}

fn redis_access(gateway: &Gateway) -> RedisAccess {
    RedisAccess {
        url: gateway.publish_redis().expose().to_owned(),
        ca: gateway.publish_redis().ca().map(|ca| ca.pem().to_owned()),
        prefix: gateway.keys().prefix().to_owned(),
    }
}

fn name(name: String) -> Result<String, Problem> {
    if name.len() > MAX_NAME_BYTES {
        let detail = format!(
            "name of {} bytes is over the limit of {MAX_NAME_BYTES}",
            name.len()
        );
        return Err(Problem::bad_request(detail));
    }
    if name.contains('\0') {
        return Err(Problem::bad_request("name holds a NUL character"));
    }
    Ok(if name.trim().is_empty() {
        "unnamed".to_owned()
    } else {
        name
    })
}

fn variations(count: u16) -> Result<u16, Problem> {
    if (1..=MAX_VARIATIONS).contains(&count) {
        return Ok(count);
    }
    Err(Problem::bad_request(format!(
        "variations must be from 1 to {MAX_VARIATIONS}, not {count}"
    )))
}

/// Labels that may be given to a run.
///
/// # Errors
/// 400 names the limit that they break.
pub(super) fn labels(labels: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    if labels.len() > MAX_LABELS {
        let detail = format!("{} labels are over the limit of {MAX_LABELS}", labels.len());
        return Err(Problem::bad_request(detail));
    }
    let fits = |text: &str| text.len() <= MAX_LABEL_BYTES && !text.contains('\0');
    let bad = labels
        .iter()
        .find(|(name, value)| name.is_empty() || !fits(name) || !value.as_str().is_some_and(fits));
    match bad {
        None => Ok(labels),
        Some((name, _)) => {
            let name: String = name.chars().take(64).collect();
            Err(Problem::bad_request(format!(
                "label {name:?}: name and value must be texts of at most {MAX_LABEL_BYTES} bytes without NUL"
            )))
        }
    }
}

/// The labels that a list is asked for: `label=team=search`, all of them where there are several.
///
/// # Errors
/// 400 for one without a value, or that no run can have.
pub(super) fn wanted_labels(query: &Query) -> Result<Map<String, Value>, Problem> {
    let mut wanted = Map::new();
    for text in query.all("label") {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Problem::bad_request("parameter label: expected NAME=VALUE, such as team=search")
        })?;
        wanted.insert(name.to_owned(), Value::from(value));
    }
    labels(wanted)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad_request(format!(
            "Idempotency-Key must be 1 to {MAX_KEY_BYTES} ASCII characters"
        ))),
    }
}
