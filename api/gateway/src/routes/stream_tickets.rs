//! `/v1/stream-tickets`: tickets for an `EventSource` that can send neither a header nor a cookie;
//! see [`runcast_access::stream_ticket`].
//!
//! An `EventSource` of another origin sends a ticket (`?ticket=`), which is valid for one stream
//! within 30 seconds, so that no address contains a token. To resume, it gets another ticket and
//! continues with `after=`; the documentation of the route says how.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::run_access::check_run_access;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::credential::Bounds;
use runcast_access::principal::Principal;
use runcast_access::stream_ticket::TICKET_TTL;
use runcast_fanout::multi_viewer::MAX_WATCHED_RUNS;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(create))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewStreamTicket {
    /// The runs that it is valid for; without them it is valid for all that the caller may read.
    #[schema(min_items = 1, max_items = 64)]
    runs: Option<Vec<Uuid>>,
}

/// Holds a secret, so it has no `Debug`.
#[derive(Serialize, ToSchema)]
struct StreamTicket {
    ticket: String,
    /// Seconds.
    expires_in: u64,
}

/// Creates a ticket that opens one stream: for an `EventSource` of another origin, which can send
/// neither a header nor a cookie.
///
/// Send it as `?ticket=` to `/v1/runs/{run}/stream`, `/v1/watch` or `/v1/feed` within 30 seconds;
/// it is used up then. It stands for the credential of this request, for reading only: that
/// credential must still be valid when the ticket is used, and the stream ends when it ends. A
/// ticket can be used once among all replicas, which check it in Redis: without Redis there are no
/// tickets, and this answers 503.
///
/// An `EventSource` reconnects with the address that it was created with, whose ticket is used up:
/// the answer is 401, and it never reconnects again. So close it on its first `error`, get another
/// ticket, and open another one with `after=` the last id that it received:
///
/// ```js
/// async function follow(run, after = "") {
///   const answer = await fetch(`${gateway}/v1/stream-tickets`, {
///     method: "POST", headers: { Authorization: `Bearer ${token}` },
///     body: JSON.stringify({ runs: [run] }),
///   });
///   const { ticket } = await answer.json();
///   const address = `${gateway}/v1/runs/${run}/stream?ticket=${ticket}&after=${after}`;
///   const source = new EventSource(address);
///   source.addEventListener("output", ({ lastEventId, data }) => {
///     after = lastEventId; show(data);
///   });
///   source.onerror = () => { source.close(); setTimeout(follow, 3000, run, after); };
///   source.addEventListener("end", () => source.close());
/// }
/// ```
#[utoipa::path(
    post,
    path = "/v1/stream-tickets",
    request_body = NewStreamTicket,
    responses(
        (status = 201, description = "The ticket, which no other answer repeats", body = StreamTicket),
        (status = 404, description = "One of the runs does not exist"),
    ),
    security(("bearer" = [Scope::Read])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn create(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    StrictJson(body): StrictJson<NewStreamTicket>,
) -> Result<(StatusCode, Json<StreamTicket>), Problem> {
    let bounds = match body.runs {
        Some(runs) => checked_bounds(&gateway, &principal, &runs).await?,
        None => Bounds::default(),
    };
    let ticket = gateway.access().ticket(&principal, bounds).await?;
    let created = StreamTicket {
        ticket: ticket.expose().to_owned(),
        expires_in: TICKET_TTL.as_secs(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Checks the runs of a ticket now: an `EventSource` does not show the answer that it got.
async fn checked_bounds(
    gateway: &Gateway,
    principal: &Principal,
    runs: &[Uuid],
) -> Result<Bounds, Problem> {
    if !(1..=MAX_WATCHED_RUNS).contains(&runs.len()) {
        let detail =
            format!("runs: expected 1 to {MAX_WATCHED_RUNS}, or leave the field out for all");
        return Err(Problem::bad_request(detail));
    }
    for run in runs {
        check_run_access(gateway, principal, Scope::Read, *run).await?;
    }
    let existing = gateway.store().existing_runs(runs).await?;
    match runs.iter().find(|run| !existing.contains(run)) {
        Some(missing) => Err(Problem::not_found("run", &missing.to_string())),
        None => Ok(Bounds::of(runs.iter().copied())),
    }
}
