//! `POST /v1/runs/{run}/control`: sends a command to the agents of a run: cancel, pause, resume,
//! input.
//!
//! The answer, 202 with the id of the command, says that the command waits for its agents. Its
//! progress is in the run stream, as `control` events with that `command_id`: `requested` from
//! here, then `received`, and `done` or `refused` from each agent. Without `variation` a command is
//! for every variation that is not over. The answer is 404 if there is no such variation, 409 if
//! the run or the variation is over, and 429 if too many commands wait already, which the run
//! stream says as well.
//!
//! `requested` is published before the command is sent, since an agent may answer within a
//! millisecond. A command that then cannot be sent is published as `refused`. Like everything in
//! Redis, a waiting command is lost with a lost Redis: then `requested` is all that a viewer sees
//! of it.
//!
//! Every command is a producer of its own: it publishes at most two batches, in this order. Input
//! is sent to the agents only and never published. Limits: [`MAX_COMMAND_BYTES`] of input; the
//! Redis deadline for each of three calls.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use runcast_common::commands::{
    CommandResult, MAX_COMMAND_BYTES, MAX_PENDING_COMMANDS, SendCommand,
};
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::event::{self, Action, Control, ControlState, Kind, Status};
use runcast_common::scripts::{Append, AppendAs, AppendOutcome, Cap};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{error, info};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::run_access::find_run;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_store::runs::Run;

/// Longest name of a principal in a command; a longer one is cut.
const MAX_BY_BYTES: usize = 200;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(send))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Command)]
#[serde(deny_unknown_fields)]
struct CommandRequest {
    #[schema(schema_with = commands)]
    command: Action,
    /// The variation that it is for; without it the command is for all that are not over.
    variation: Option<u16>,
    /// The text of `input`; other commands have none.
    data: Option<String>,
}

/// The commands that a run accepts.
fn commands() -> ObjectBuilder {
    let names = Action::ALL.map(|action| action.to_string());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
}

#[derive(Debug, Serialize, ToSchema)]
struct AcceptedCommand {
    /// The `command_id` of the events about its progress.
    id: Uuid,
    #[schema(schema_with = commands)]
    command: Action,
    variations: Vec<u16>,
}

/// Sends a command to the agents of a run: cancel, pause, resume, or input.
#[utoipa::path(
    post,
    path = "/v1/runs/{run}/control",
    request_body = CommandRequest,
    responses(
        (status = 202, description = "The command waits for its agents", body = AcceptedCommand),
        (status = 409, description = "The run, or the variation, is over"),
    ),
    security(("bearer" = [Scope::Control])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn send(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    StrictJson(request): StrictJson<CommandRequest>,
) -> Result<(StatusCode, Json<AcceptedCommand>), Problem> {
    let run = find_run(&gateway, &principal, Scope::Control, &id).await?;
    let data = data(&request)?;
    let variations = addressees(&run, request.variation)?;
    let by = &principal.name[..principal.name.floor_char_boundary(MAX_BY_BYTES)];
    let mut events = ControlEvents {
        gateway: &gateway,
        run: run.id,
        id: Uuid::now_v7(),
        action: request.command,
        variations: &variations,
        published: 0,
    };
    // 1. Publish the request, before an agent can answer it.
    events
        .publish(ControlState::Requested, Some(by), None)
        .await?;
    // 2. Send the command.
    let send = SendCommand {
        id: events.id,
        action: request.command,
        by,
        data,
        variations: &variations,
    };
    let keys = gateway.keys().run(run.id);
    let result = gateway
        .redis()
        .run(keys.slot, async |connection| {
            send.call(&keys, connection).await
        })
        .await?;
    if result == CommandResult::Full {
        let reason = format!(
            "too many commands wait for agents: {MAX_PENDING_COMMANDS} of a run at most, counted for each \
             variation"
        );
        events
            .publish(ControlState::Refused, None, Some(&reason))
            .await?;
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, reason));
    }
    // 3. Note who sent it.
    let id = events.id;
    audit(&gateway, &principal, &run, id, &request).await;
    info!(run = %run.id, command = %request.command, %id, by, "a command waits for its agents");
    let accepted = AcceptedCommand {
        id,
        command: request.command,
        variations,
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Writes the command into the audit log, without its input. The command was sent already: without
/// Postgres only the run stream and the log tell of it.
async fn audit(
    gateway: &Gateway,
    principal: &Principal,
    run: &Run,
    id: Uuid,
    request: &CommandRequest,
) {
    let details = json!({
        "command": request.command, "id": id, "variation": request.variation,
    });
    let (actor, target) = (principal.actor(), run.id.to_string());
    let written = gateway
        .store()
        .audit(&actor, "run.control", &target, details);
    if let Err(error) = written.await {
        error!(%error, run = target, %id, by = actor.name, "cannot write a command to the audit log");
    }
}

/// The input of the command.
fn data(request: &CommandRequest) -> Result<&str, Problem> {
    match (request.command, request.data.as_deref()) {
        (Action::Input, Some(data)) if (1..=MAX_COMMAND_BYTES).contains(&data.len()) => Ok(data),
        (Action::Input, _) => Err(Problem::bad_request(format!(
            "input needs data, a text of 1 to {MAX_COMMAND_BYTES} bytes"
        ))),
        (_, None) => Ok(""),
        (action, Some(_)) => Err(Problem::bad_request(format!("{action} takes no data"))),
    }
}

/// The variations that the command is for.
fn addressees(run: &Run, variation: Option<u16>) -> Result<Vec<u16>, Problem> {
    let is_over = |status: &str| {
        let states = [Status::Succeeded, Status::Failed, Status::Cancelled];
        states.into_iter().any(|state| state.name() == status)
    };
    let is_addressed = |index: u16| variation.is_none_or(|one| one == index);
    let addressed: Vec<_> = run
        .variations
        .iter()
        .filter(|one| is_addressed(one.index))
        .collect();
    if let ([], Some(variation)) = (&addressed[..], variation) {
        let detail = format!("run {} has no variation {variation}", run.id);
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let open = addressed.iter().filter(|one| !is_over(&one.status));
    let open: Vec<u16> = open.map(|one| one.index).collect();
    if open.is_empty() {
        let what = variation.map_or_else(
            || format!("run {} is over", run.id),
            |variation| format!("variation {variation} of run {} is over", run.id),
        );
        return Err(Problem::new(StatusCode::CONFLICT, what));
    }
    Ok(open)
}

/// Publishes `control` events of one command to the run stream.
struct ControlEvents<'a> {
    gateway: &'a Gateway,
    run: Uuid,
    id: Uuid,
    action: Action,
    variations: &'a [u16],
    /// Events so far.
    published: u64,
}

impl ControlEvents<'_> {
    /// Publishes an event for each variation.
    async fn publish(
        &mut self,
        state: ControlState,
        by: Option<&str>,
        reason: Option<&str>,
    ) -> Result<(), Problem> {
        let control = Control {
            command: self.action,
            id: self.id,
            state,
            by: by.map(str::to_owned),
            reason: reason.map(str::to_owned),
        };
        let (mut body, time) = (Vec::new(), event::now_ms());
        for variation in self.variations {
            event::write_line(&mut body, Kind::Control, *variation, time, &control)
                .map_err(|error| Problem::bad_request(error.to_string()))?;
        }
        let cap = Cap::default();
        let append = Append {
            producer: self.id,
            producer_epoch: 0,
            base: 0,
            acked: 0,
            first: self.published + 1,
            count: self.variations.len() as u64,
            body: Body::compress(&body),
            // A run that is full, because nothing is stored at the moment, can still be cancelled.
            cap: Cap {
                entries: cap.entries * 2,
                bytes: cap.bytes * 2,
            },
        };
        let keys = self.gateway.keys().run(self.run);
        let appended = self
            .gateway
            .redis()
            .run(keys.slot, async |connection| {
                append.call(&keys, AppendAs::Service, connection).await
            })
            .await?;
        match appended.outcome {
            AppendOutcome::Stored { .. } => {
                self.published += append.count;
                Ok(())
            }
            AppendOutcome::Gone => Err(Problem::gone("the run was deleted")),
            _ => Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "the run is full until its events are stored: try again later",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use chrono::Utc;
    use runcast_common::protocol::event_id::EventId;

    use super::*;
    use runcast_store::runs::Variation;

    fn run(states: &[&str]) -> Run {
        let variation = |(index, status): (u16, &&str)| Variation {
            index,
            status: (*status).to_owned(),
            exit_code: None,
            signal: None,
            message: None,
            missing: None,
        };
        Run {
            id: Uuid::nil(),
            name: "test".into(),
            labels: serde_json::json!({}),
            status: "running".into(),
            variations: (0..).zip(states).map(variation).collect(),
            created_at: Utc::now(),
            started_at: None,
            ended_at: None,
            sealed: false,
            archived_at: None,
            hold: None,
            redacted: false,
            events: 0,
            bytes: 0,
            last_id: EventId::ZERO,
        }
    }

    fn status(result: Result<Vec<u16>, Problem>) -> StatusCode {
        result.expect_err("refused").into_response().status()
    }

    #[test]
    fn a_command_is_for_the_variations_that_are_not_over() {
        let mixed = run(&["succeeded", "running", "pending", "lost"]);
        assert_eq!(addressees(&mixed, None), Ok(vec![1, 2, 3]));
        assert_eq!(addressees(&mixed, Some(2)), Ok(vec![2]));
        assert_eq!(status(addressees(&mixed, Some(0))), StatusCode::CONFLICT);
        assert_eq!(status(addressees(&mixed, Some(4))), StatusCode::NOT_FOUND);
        let over = run(&["failed", "cancelled"]);
        assert_eq!(status(addressees(&over, None)), StatusCode::CONFLICT);
    }

    #[test]
    fn only_input_has_data_and_within_its_limit() {
        let request = |command, data: Option<&str>| CommandRequest {
            command,
            variation: None,
            data: data.map(str::to_owned),
        };
        assert_eq!(data(&request(Action::Cancel, None)), Ok(""));
        assert_eq!(data(&request(Action::Input, Some("y\n"))), Ok("y\n"));
        let long = "x".repeat(MAX_COMMAND_BYTES + 1);
        for (command, text) in [
            (Action::Cancel, Some("x")),
            (Action::Input, None),
            (Action::Input, Some("")),
            (Action::Input, Some(&*long)),
        ] {
            data(&request(command, text)).expect_err("refused");
        }
    }
}
