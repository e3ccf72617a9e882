//! `POST /v1/runs/{run}/heartbeats`: the heartbeat of an agent that publishes through this gateway.
//!
//! The run of the agent is that of the path. An id that is an agent of another run is refused: a
//! publisher must not keep the agent of others alive, or describe it. Bounds: [`MAX_TEXT_BYTES`]
//! for each text, and the request rate of the run.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use runcast_common::presence::heartbeat::{self, Agent, Heartbeat};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::limits::MAX_VARIATIONS;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::protocol_version::check_protocol;
use super::published_runs::PublishedRuns;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::problem::Problem;
use runcast_access::Scope;

/// Longest host name and version; a longer one is cut.
const MAX_TEXT_BYTES: usize = 255;

pub(super) fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(heartbeat))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Heartbeat)]
struct HeartbeatRequest {
    /// The agent, which is the producer.
    agent: Uuid,
    #[schema(maximum = 255)]
    variation: u16,
    /// Host name of the agent.
    host: String,
    pid: u32,
    /// Version of Runcast.
    version: String,
    /// Start time, Unix milliseconds.
    started: u64,
    /// The agent's clock, Unix milliseconds.
    time: u64,
    /// Events published so far.
    published: u64,
    /// Published events that Postgres does not hold yet, as far as the agent knows.
    unstored: u64,
    /// Milliseconds since the last output or log event.
    quiet_ms: Option<u64>,
    /// Resident memory in bytes.
    rss: Option<u64>,
    /// Processors used since the previous heartbeat.
    cpu: Option<f64>,
}

/// Records the heartbeat of an agent.
#[utoipa::path(
    post,
    path = "/v1/runs/{run}/heartbeats",
    params(("Runcast-Protocol" = u32, Header, description = "The version of the protocol: 1")),
    request_body = HeartbeatRequest,
    responses(
        (status = 204, description = "It is recorded"),
        (status = 409, description = "The agent publishes to another run"),
    ),
    security(("bearer" = [Scope::Publish])),
    extensions(("x-rate-class" = json!("publish")))
)]
async fn heartbeat(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Extension(runs): Extension<Arc<PublishedRuns>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<StrictJson<HeartbeatRequest>, Problem>,
) -> Result<StatusCode, Problem> {
    let run = runs.authorize(&gateway, &principal, &id).await?;
    check_protocol(&headers)?;
    let StrictJson(request) = body?;
    if request.variation >= MAX_VARIATIONS {
        let detail = format!("variation must be below {MAX_VARIATIONS}");
        return Err(Problem::bad_request(detail));
    }
    run.count_request(&gateway, &principal).await?;
    let (redis, keys) = (gateway.redis(), gateway.keys());
    let known = heartbeat::read_agents(redis, keys, &[request.agent]).await?;
    if known.iter().any(|(_, about)| about.run != run.id) {
        let detail = "this agent publishes to another run";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let (agent, heartbeat) = request.split(run.id);
    heartbeat::send(redis, keys, &keys.run(run.id), &agent, &heartbeat).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl HeartbeatRequest {
    fn split(self, run: Uuid) -> (Agent, Heartbeat) {
        let agent = Agent {
            run,
            variation: self.variation,
            host: cut(self.host),
            pid: self.pid,
            version: cut(self.version),
            started: self.started,
        };
        let heartbeat = Heartbeat {
            kind: Kind::Heartbeat,
            variation: self.variation,
            time: self.time,
            agent: self.agent,
            published: self.published,
            unstored: self.unstored,
            quiet_ms: self.quiet_ms,
            rss: self.rss,
            cpu: self.cpu,
        };
        (agent, heartbeat)
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}
