//! `GET /v1/runs/{run}/search`: finds lines of a run, also while it is live.
//!
//! `q=` finds a text, `regex=` an expression of the crate `regex` (no look-around, no
//! back-references: both would take more than linear time); `ignore_case` applies to either.
//! `channel=` and `level=` (several) filter lines, `context=N` adds the lines around. The search
//! runs forward behind `after=ID`, backward before `before=ID`, or backward from the end with
//! `before=end`; by default forward from the beginning. The work of one answer is bounded
//! ([`runcast_history::text::search`]): one that is not `done` came as far as its `cursor`, which
//! is the next `after` or `before`.
//!
//! A search looks at a line as a reader sees it and as it was written
//! ([`runcast_history::text::lines`]). It runs on threads of its own, at most one for two cores and
//! [`MAX_SEARCHES`], so that it delays no viewer; others wait, at most [`MAX_WAIT`]. It ends with
//! its request and with the gateway, within a piece of a line
//! ([`runcast_history::text::pattern`]).

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use runcast_common::protocol::event_id::EventId;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::run_access::authorize_run;
use super::text::handler::text_filter;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::middleware::compression::compression;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_history::text::pattern::{InvalidPattern, Pattern};
use runcast_history::text::search::{
    MAX_CONTEXT_LINES, MAX_MATCHES, Search, SearchResults, SearchStart, SearchWork,
};

/// Searches at a time, however many cores there are.
const MAX_SEARCHES: usize = 4;

/// How long a search waits for others to end.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Matches of an answer, without `limit`.
const DEFAULT_MATCHES: usize = 100;

/// Most levels of one search; there are six.
const MAX_LEVELS: usize = 16;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(search))
        .layer(compression())
        .layer(Extension(Arc::new(Semaphore::new(searches_at_a_time()))))
}

/// Half of the cores: the other half serves viewers, whatever is searched.
fn searches_at_a_time() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    (cores / 2).clamp(1, MAX_SEARCHES)
}

/// Finds lines of a run, also while it is live.
///
/// Give either `q` or `regex`. A line matches as it is shown (carriage returns and cursor movements
/// applied; a JSON log line as its message and `status=500`) or as it was written; composed and
/// decomposed characters are the same. A line that was written in several parts is one line, named
/// by the event that it began with. An answer that is not `done` came as far as its `cursor`.
///
/// An expression is refused if it is too large, or if the lines of one event take too long.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/search",
    params(
        ("q" = Option<String>, Query, description = "A text"),
        ("regex" = Option<String>, Query, description = "An expression, without look-around and back-references; at most 600 characters when its repetitions are written out"),
        ("ignore_case" = Option<bool>, Query),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `log`"),
        ("level" = Option<Vec<String>>, Query, description = "Only logs of these levels"),
        ("context" = Option<u64>, Query, description = "Lines around each match"),
        ("after" = Option<String>, Query, description = "Forward, behind this id"),
        ("before" = Option<String>, Query, description = "Backward, before this id or from the `end`"),
        ("limit" = Option<u64>, Query, description = "100, and 500 at most"),
    ),
    responses((status = 200, description = "The matches", body = SearchResults)),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("search")))
)]
async fn search(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(permits): Extension<Arc<Semaphore>>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<SearchResults>, Problem> {
    let (filter, pattern, from) = (text_filter(&query)?, pattern(&query)?, start(&query)?);
    let limit = query.parse("limit")?.unwrap_or(DEFAULT_MATCHES);
    let context = query.parse("context")?.unwrap_or(0);
    let (run, _) = authorize_run(&gateway, &principal, Scope::Read, &id).await?;
    let search = Arc::new(Search {
        run,
        filter,
        pattern,
        from,
        limit: limit.clamp(1, MAX_MATCHES),
        context: usize::min(context, MAX_CONTEXT_LINES),
    });
    let Ok(Ok(permit)) = timeout(MAX_WAIT, permits.acquire_owned()).await else {
        return Err(Problem::unavailable(
            "too many searches run at the moment; try again",
        ));
    };
    // The server drops this future when the client is gone, and the guard with it.
    let stop = gateway.hub().stop().child_token();
    let _guard = stop.clone().drop_guard();
    let work = SearchWork::new(stop, permit);
    Ok(Json(search.run(gateway.hub().reader(), &work).await?))
}

fn pattern(query: &Query) -> Result<Pattern, Problem> {
    let (name, text) = match (query.get("q"), query.get("regex")) {
        (Some(text), None) => ("q", text),
        (None, Some(text)) => ("regex", text),
        (None, None) => return Err(Problem::bad_request("give q= or regex= to look for")),
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("give either q or regex, not both"));
        }
    };
    let levels: Vec<String> = query.all("level").map(str::to_owned).collect();
    if levels.len() > MAX_LEVELS {
        let count = levels.len();
        return Err(Problem::bad_request(format!(
            "{count} levels are over the limit of {MAX_LEVELS}"
        )));
    }
    let ignore_case = query.flag("ignore_case")?;
    Pattern::new(text, name == "regex", ignore_case, levels).map_err(|invalid| {
        let problem = Problem::bad_request(format!("parameter {name}: {invalid}"));
        match invalid {
            InvalidPattern::Syntax { position, .. } => problem.with("position", position as u64),
            _ => problem,
        }
    })
}

fn start(query: &Query) -> Result<SearchStart, Problem> {
    match (query.get("after"), query.get("before")) {
        (Some(_), Some(_)) => Err(Problem::bad_request(
            "give either after or before, not both",
        )),
        (None, Some("end")) => Ok(SearchStart::Before(None)),
        (None, Some(before)) => Ok(SearchStart::Before(Some(EventId::parse_cursor(before)?))),
        (after, None) => {
            let after = after.map(EventId::parse_cursor).transpose()?;
            Ok(SearchStart::After(after.unwrap_or(EventId::ZERO)))
        }
    }
}
