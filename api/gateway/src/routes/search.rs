//! `GET /v1/runs/{run}/search`: lines of a run that hold a text, while it is live as well.
//!
//! `q=` looks for a text, `regex=` for an expression of the crate `regex` (no look-around, no
//! back-references: both would cost more than linear time); `ignore_case` for either. `channel=` and
//! `level=` (several) choose lines, `context=N` adds those around. Forward behind `after=ID`, or
//! backward before `before=ID`, or from the end with `before=end`; nothing said is forward from the
//! beginning. An answer that is not `done` came as far as its `cursor`, to be given as the next
//! `after` or `before`: its work is bounded, as [`runcast_history::text::search`] says. Of one gateway,
//! [`AT_ONCE`] searches run at a time, and others wait for [`MOST_WAIT`].

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use runcast_common::protocol::event_id::EventId;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::runs::admit;
use super::text::text_filter;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::query::Query;
use crate::middleware::compression::compression;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_history::text::pattern::{InvalidPattern, Pattern};
use runcast_history::text::search::{MOST_CONTEXT, MOST_MATCHES, Results, Search, Start};

/// Searches at a time: each may keep a core busy.
const AT_ONCE: usize = 4;

/// How long a search waits for its turn.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// Matches of an answer if nothing is said.
const USUAL_MATCHES: usize = 100;

/// Most levels of one search; there are six.
const MOST_LEVELS: usize = 16;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(search))
        .layer(compression())
        .layer(Extension(Arc::new(Semaphore::new(AT_ONCE))))
}

/// Finds lines of a run, while it is live as well.
///
/// Either `q` or `regex` is to be given. An answer that is not `done` came as far as its `cursor`.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/search",
    params(
        ("q" = Option<String>, Query, description = "A text"),
        ("regex" = Option<String>, Query, description = "An expression, without look-around and back-references"),
        ("ignore_case" = Option<bool>, Query),
        ("channel" = Option<Vec<String>>, Query, description = "Only these, such as `output:0` or `log`"),
        ("level" = Option<Vec<String>>, Query, description = "Only logs of these levels"),
        ("context" = Option<u64>, Query, description = "Lines around each match"),
        ("after" = Option<String>, Query, description = "Forward, behind this id"),
        ("before" = Option<String>, Query, description = "Backward, before this id or from the `end`"),
        ("limit" = Option<u64>, Query, description = "100, and 500 at most"),
    ),
    responses((status = 200, description = "What was found", body = Results)),
    security(("bearer" = [Scope::Read]))
)]
async fn search(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(places): Extension<Arc<Semaphore>>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Results>, Problem> {
    let (filter, pattern, from) = (text_filter(&query)?, pattern(&query)?, from(&query)?);
    let limit = query.parse("limit")?.unwrap_or(USUAL_MATCHES);
    let context = query.parse("context")?.unwrap_or(0);
    let (run, _) = admit(&gateway, &principal, Scope::Read, &id).await?;
    let search = Search {
        run,
        filter,
        pattern,
        from,
        limit: limit.clamp(1, MOST_MATCHES),
        context: usize::min(context, MOST_CONTEXT),
    };
    let Ok(Ok(_place)) = timeout(MOST_WAIT, places.acquire()).await else {
        return Err(Problem::unavailable(
            "too many searches run at the moment; try again",
        ));
    };
    Ok(Json(search.run(gateway.hub().reader()).await?))
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
    if levels.len() > MOST_LEVELS {
        let count = levels.len();
        return Err(Problem::bad_request(format!(
            "{count} levels are over the limit of {MOST_LEVELS}"
        )));
    }
    let ignore_case = query.flag("ignore_case")?;
    Pattern::new(text, name == "regex", ignore_case, levels).map_err(|bad| {
        let problem = Problem::bad_request(format!("parameter {name}: {bad}"));
        match bad {
            InvalidPattern::Syntax { position, .. } => problem.with("position", position as u64),
            _ => problem,
        }
    })
}

fn from(query: &Query) -> Result<Start, Problem> {
    match (query.get("after"), query.get("before")) {
        (Some(_), Some(_)) => Err(Problem::bad_request(
            "give either after or before, not both",
        )),
        (None, Some("end")) => Ok(Start::Before(None)),
        (None, Some(before)) => Ok(Start::Before(Some(EventId::parse_cursor(before)?))),
        (after, None) => {
            let after = after.map(EventId::parse_cursor).transpose()?;
            Ok(Start::After(after.unwrap_or(EventId::ZERO)))
        }
    }
}
