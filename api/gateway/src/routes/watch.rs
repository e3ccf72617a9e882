//! `/v1/watch`: several runs as server-sent events on one connection, each resumed exactly.
//!
//! `run=ID` (several) names them; `label=NAME=VALUE` (several) watches all runs that have these labels and are not over, and
//! those that are created later. Each event's data tells its `run`; its id is a cursor for all of them, which
//! comes back as `Last-Event-ID` or `?after=`.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::runs::{admit, wanted_labels};
use super::stream::{as_events, resume};
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_fanout::multi_cursor::MultiCursor;
use runcast_fanout::multi_viewer::{MOST_RUNS, NoDiscovery, RunDiscovery, Runs, bytes};
use runcast_store::runs::{Run, RunFilter};
use runcast_store::visibility::Visible;
use runcast_store::{Store, StoreError};

/// The newest runs with the labels: among them are those that a viewer who comes back has watched.
const NEWEST: u16 = 200;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// Follows several runs on one connection, as server-sent events, each resumed exactly.
///
/// Either `run` or `label` is to be given.
#[utoipa::path(
    get,
    path = "/v1/watch",
    params(
        ("run" = Option<Vec<Uuid>>, Query),
        ("label" = Option<Vec<String>>, Query, description = "`NAME=VALUE`: runs with all of them, also those to come"),
        ("after" = Option<String>, Query, description = "The id of the last event: a cursor for each run"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, and wins over it"),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `status`"),
        ("level" = Option<Vec<String>>, Query, description = "Only logs of these levels"),
    ),
    responses(
        (status = 200, description = "The data of each event tells its `run`", body = String, content_type = "text/event-stream"),
        (status = 204, description = "All of them are over and nothing is behind the cursors: stay away"),
        (status = 404, description = "There is no such run"),
    ),
    security(("bearer" = [Scope::Read]), ("ticket" = [Scope::Read]))
)]
async fn watch(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = match resume(&headers, &query)? {
        Some(text) => {
            MultiCursor::parse(text).map_err(|error| Problem::bad_request(error.to_string()))?
        }
        None => MultiCursor::default(),
    };
    let filter = query.filter()?.of_levels(query.levels()?);
    let labels = wanted_labels(&query)?;
    let named: Vec<&str> = query.all("run").collect();
    let hub = gateway.hub().clone();
    let opened = gateway.access().openings().open(&principal);
    let body = match (named.is_empty(), labels.is_empty()) {
        (false, true) => {
            let Some(runs) = follow(&gateway, &principal, &named, &after).await? else {
                return Ok(StatusCode::NO_CONTENT.into_response());
            };
            let nobody = None::<NoDiscovery>;
            Body::from_stream(
                bytes(hub, runs, after, filter, nobody, opened).map(Ok::<_, Infallible>),
            )
        }
        (true, false) => {
            let visible = principal.visible(Scope::Read)?;
            let mut labelled = Labelled {
                store: gateway.store().clone(),
                labels,
                visible,
            };
            let is_followed = |run: &Run| run.ended_at.is_none() || after.get(run.id).is_some();
            let newest = labelled.newest().await?;
            let live = newest.into_iter().filter(is_followed);
            let runs = Runs {
                live: live.map(|run| run.id).take(MOST_RUNS).collect(),
                over: Vec::new(),
            };
            let later = Some(labelled);
            Body::from_stream(
                bytes(hub, runs, after, filter, later, opened).map(Ok::<_, Infallible>),
            )
        }
        _ => {
            let detail =
                format!("give either run=ID, up to {MOST_RUNS} of them, or label=NAME=VALUE");
            return Err(Problem::bad_request(detail));
        }
    };
    Ok(as_events(body.into_response()))
}

/// The named runs; none if all are over and were shown to the end.
async fn follow(
    gateway: &Gateway,
    principal: &Principal,
    named: &[&str],
    after: &MultiCursor,
) -> Result<Option<Runs>, Problem> {
    if named.len() > MOST_RUNS {
        let count = named.len();
        return Err(Problem::bad_request(format!(
            "{count} runs are over the limit of {MOST_RUNS} on one connection"
        )));
    }
    let mut runs = Runs::default();
    for id in named {
        let (run, coverage) = admit(gateway, principal, Scope::Read, id).await?;
        match coverage.ended && after.of(run) >= coverage.watermark {
            true => runs.over.push(run),
            false => runs.live.push(run),
        }
    }
    Ok((!runs.live.is_empty()).then_some(runs))
}

/// Runs with labels, as they are created.
#[derive(Debug)]
struct Labelled {
    store: Store,
    labels: Map<String, Value>,
    visible: Visible,
}

impl Labelled {
    async fn newest(&mut self) -> Result<Vec<Run>, StoreError> {
        let filter = RunFilter {
            labels: self.labels.clone(),
            visible: self.visible.clone(),
            limit: NEWEST,
            ..RunFilter::default()
        };
        self.store.runs(&filter).await
    }
}

impl RunDiscovery for Labelled {
    async fn look(&mut self) -> Result<Vec<Uuid>, StoreError> {
        let runs = self.newest().await?;
        let live = runs.iter().filter(|run| run.ended_at.is_none());
        Ok(live.map(|run| run.id).collect())
    }
}
