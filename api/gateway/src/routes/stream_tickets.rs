//! `/v1/stream-tickets`: what an `EventSource` shows that can send neither a header nor a cookie; see
//! [`runcast_access::stream_ticket`].

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::runs::allow;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::credential::Bounds;
use runcast_access::principal::Principal;
use runcast_access::stream_ticket::LIFE;
use runcast_fanout::multi_viewer::MOST_RUNS;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(create))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewStreamTicket)]
struct NewStreamTicket {
    /// The only runs that it is for; without, it is for all that one may read.
    #[schema(min_items = 1, max_items = 64)]
    runs: Option<Vec<Uuid>>,
}

/// Holds a secret, so it cannot be printed.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamTicket)]
struct StreamTicket {
    ticket: String,
    /// Seconds.
    expires_in: u64,
}

/// Makes a ticket that opens one stream: for an `EventSource` of another origin, which can send neither header nor cookie.
///
/// It goes as `?ticket=` to `/v1/runs/{run}/stream`, `/v1/watch` or `/v1/feed`, within 30 seconds, and is used up then. It stands
/// for the credential that asks here, for reading alone: that must still be valid when the ticket is used, and the
/// stream ends when it ends. A ticket is good for one use among all replicas, which all ask Redis: without Redis there
/// are none, and this answers 503.
///
/// An `EventSource` reconnects with the address that it was made with, whose ticket is used up: it is answered 401, and stays
/// away for good. So close it on its first `error`, get another ticket, and open another one with `after=` the last id that it
/// has seen:
///
/// ```js
/// async function follow(run, after = "") {
///   const answer = await fetch(`${gateway}/v1/stream-tickets`, {
///     method: "POST", headers: { Authorization: `Bearer ${token}` }, body: JSON.stringify({ runs: [run] }),
///   });
///   const { ticket } = await answer.json();
///   const source = new EventSource(`${gateway}/v1/runs/${run}/stream?ticket=${ticket}&after=${after}`);
///   source.addEventListener("output", ({ lastEventId, data }) => { after = lastEventId; show(data); });
///   source.onerror = () => { source.close(); setTimeout(follow, 3000, run, after); };
///   source.addEventListener("end", () => source.close());
/// }
/// ```
#[utoipa::path(
    post,
    path = "/v1/stream-tickets",
    request_body = NewStreamTicket,
    responses(
        (status = 201, description = "The ticket, here and nowhere else", body = StreamTicket),
        (status = 404, description = "There is no such run"),
    ),
    security(("bearer" = [Scope::Read]))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(create): StrictJson<NewStreamTicket>,
) -> Result<(StatusCode, Json<StreamTicket>), Problem> {
    let bounds = match create.runs {
        Some(runs) => bounds(&gateway, &principal, &runs).await?,
        None => Bounds::default(),
    };
    let ticket = gateway.access().ticket(&principal, bounds).await?;
    let created = StreamTicket {
        ticket: ticket.expose().to_owned(),
        expires_in: LIFE.as_secs(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// What is wrong with a ticket is told here: an `EventSource` does not say what it was answered.
async fn bounds(
    gateway: &Gateway,
    principal: &Principal,
    runs: &[Uuid],
) -> Result<Bounds, Problem> {
    if !(1..=MOST_RUNS).contains(&runs.len()) {
        let detail = format!("runs: expected 1 to {MOST_RUNS}, or none of this field for all");
        return Err(Problem::bad_request(detail));
    }
    for run in runs {
        allow(gateway, principal, Scope::Read, *run).await?;
    }
    let existing = gateway.store().existing_runs(runs).await?;
    match runs.iter().find(|run| !existing.contains(run)) {
        Some(missing) => Err(Problem::no_such_run(&missing.to_string())),
        None => Ok(Bounds::of(runs.iter().copied())),
    }
}
