//! `/v1/watch`: several runs as server-sent events on one connection, each resumed exactly.
//!
//! `run=ID` (several) names them. `label=NAME=VALUE` (several) watches all runs that have these
//! labels and are not over, and those that are created later. The data of each event names its
//! `run`. The id of an event is a cursor for all runs, which a client sends back as `Last-Event-ID`
//! or `?after=`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::labelled_runs::{LabelQuery, LabelledRuns};
use super::run_access::authorize_run;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::labels::label_filter;
use crate::extract::query::Query;
use crate::extract::sse::{as_events, resume};
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_fanout::multi_cursor::MultiCursor;
use runcast_fanout::multi_viewer::{
    MAX_WATCHED_RUNS, NoDiscovery, RunDiscovery, Runs, multi_viewer_body,
};
use runcast_store::StoreError;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(watch))
        .layer(Extension(Arc::<LabelledRuns>::default()))
}

/// Follows several runs on one connection, as server-sent events, each resumed exactly.
///
/// Give either `run` or `label`.
#[utoipa::path(
    get,
    path = "/v1/watch",
    params(
        ("run" = Option<Vec<Uuid>>, Query),
        ("label" = Option<Vec<String>>, Query, description = "`NAME=VALUE`: runs with all of them, also those that are created later"),
        ("after" = Option<String>, Query, description = "The id of the last event: a cursor for each run"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same; wins over `after`"),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `status`"),
        ("level" = Option<Vec<String>>, Query, description = "Only logs of these levels"),
    ),
    responses(
        (status = 200, description = "The data of each event names its `run`", body = String, content_type = "text/event-stream"),
        (status = 204, description = "All of them are over, and nothing is behind the cursors: do not reconnect"),
        (status = 404, description = "One of the runs does not exist"),
        (status = 410, description = "One of the runs was deleted"),
    ),
    security(("bearer" = [Scope::Read]), ("ticket" = [Scope::Read])),
    extensions(("x-rate-class" = json!("stream")))
)]
async fn watch(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(labelled_runs): Extension<Arc<LabelledRuns>>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = match resume(&headers, &query)? {
        Some(text) => {
            MultiCursor::parse(text).map_err(|error| Problem::bad_request(error.to_string()))?
        }
        None => MultiCursor::default(),
    };
    let filter = query.filter()?.with_levels(query.levels()?);
    let labels = label_filter(&query)?;
    let named: Vec<&str> = query.all("run").collect();
    let hub = gateway.hub().clone();
    let registration = gateway.access().open_streams().open(&principal);
    let body = match (named.is_empty(), labels.is_empty()) {
        (false, true) => {
            let Some(runs) = named_runs(&gateway, &principal, &named, &after).await? else {
                return Ok(StatusCode::NO_CONTENT.into_response());
            };
            let discovery = None::<NoDiscovery>;
            let frames = multi_viewer_body(hub, runs, after, filter, discovery, registration);
            Body::from_stream(frames.map(Ok::<_, Infallible>))
        }
        (true, false) => {
            let labelled = LabelQuery {
                store: gateway.store().clone(),
                shared: labelled_runs,
                labels,
                visible: principal.visible(Scope::Read)?,
            };
            let runs = labelled.open_or_known(&after).await?;
            let frames = multi_viewer_body(hub, runs, after, filter, Some(labelled), registration);
            Body::from_stream(frames.map(Ok::<_, Infallible>))
        }
        _ => {
            let detail = format!(
                "give either run=ID, up to {MAX_WATCHED_RUNS} of them, or label=NAME=VALUE"
            );
            return Err(Problem::bad_request(detail));
        }
    };
    Ok(as_events(body.into_response()))
}

/// The named runs; `None` if all are over and the cursors are at their ends.
async fn named_runs(
    gateway: &Gateway,
    principal: &Principal,
    named: &[&str],
    after: &MultiCursor,
) -> Result<Option<Runs>, Problem> {
    if named.len() > MAX_WATCHED_RUNS {
        let count = named.len();
        return Err(Problem::bad_request(format!(
            "{count} runs are over the limit of {MAX_WATCHED_RUNS} on one connection"
        )));
    }
    let mut runs = Runs::default();
    for id in named {
        let (run, coverage) = authorize_run(gateway, principal, Scope::Read, id).await?;
        match coverage.ended && after.of(run) >= coverage.watermark {
            true => runs.ended.push(run),
            false => runs.live.push(run),
        }
    }
    Ok((!runs.live.is_empty()).then_some(runs))
}

impl LabelQuery {
    /// The newest runs, that are not over, or that the cursor knows.
    async fn open_or_known(&self, after: &MultiCursor) -> Result<Runs, StoreError> {
        let newest = self.newest().await?;
        let watched = newest
            .iter()
            .filter(|(run, is_open)| *is_open || after.get(*run).is_some());
        Ok(Runs {
            live: watched
                .map(|(run, _)| *run)
                .take(MAX_WATCHED_RUNS)
                .collect(),
            ended: Vec::new(),
        })
    }
}

/// Discovers runs with these labels, as they are created.
impl RunDiscovery for LabelQuery {
    async fn find_runs(&mut self) -> Result<Vec<Uuid>, StoreError> {
        let newest = self.newest().await?;
        let open = newest.iter().filter(|(_, is_open)| *is_open);
        Ok(open.map(|(run, _)| *run).collect())
    }
}
