//! `POST /v1/runs/{run}/control`: tell the agents of a run to cancel, pause, resume, or take input.
//!
//! The answer, 202 with the command's id, says that the command waits for its agents; what becomes of
//! it is told in the run stream by `control` events with that `command_id`: `requested` from here, then
//! `received`, and `done` or `refused` from each agent. Without `variation` a command is for every
//! variation that is not over. It is refused with 404 where there is no such variation, with 409 where
//! the run or the variation is over, and with 429 where too many commands wait already, which the run
//! stream then tells, too.
//!
//! Every command is a producer of its own: it publishes at most two batches, in this order. Input is
//! only given to the agents and never published. Limits: [`MAX_COMMAND_BYTES`] of input; the Redis
//! deadline for each of three calls.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use runcast_common::protocol::commands::{
    CommandResult, MAX_COMMAND_BYTES, MAX_PENDING_COMMANDS, SendCommand,
};
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::event::{self, Action, Control, ControlState, Kind, Status};
use runcast_common::scripts::{Append, Cap, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::runs::find;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::principal::Principal;
use runcast_store::runs::Run;

/// Bytes of a principal's name in a command.
const MAX_BY_BYTES: usize = 200;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(give))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Command)]
#[serde(deny_unknown_fields)]
struct CommandRequest {
    #[schema(schema_with = commands)]
    command: Action,
    /// For all that are not over if absent.
    variation: Option<u16>,
    /// Of `input`, and of that alone.
    data: Option<String>,
}

/// What a run can be told to do.
fn commands() -> ObjectBuilder {
    let names = Action::ALL.map(|action| action.to_string());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AcceptedCommand)]
struct AcceptedCommand {
    /// The `command_id` of the events that tell what becomes of it.
    id: Uuid,
    #[schema(schema_with = commands)]
    command: Action,
    variations: Vec<u16>,
}

/// Tells the agents of a run to cancel, pause, resume, or take input.
#[utoipa::path(
    post,
    path = "/v1/runs/{run}/control",
    request_body = CommandRequest,
    responses(
        (status = 202, description = "It waits for its agents", body = AcceptedCommand),
        (status = 409, description = "The run, or the variation, is over"),
    ),
    security(("bearer" = [Scope::Control]))
)]
async fn give(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    StrictJson(wanted): StrictJson<CommandRequest>,
) -> Result<(StatusCode, Json<AcceptedCommand>), Problem> {
    let run = find(&gateway, &principal, Scope::Control, &id).await?;
    let data = data(&wanted)?;
    let variations = addressees(&run, wanted.variation)?;
    let by = &principal.name[..principal.name.floor_char_boundary(MAX_BY_BYTES)];
    let mut story = Story {
        gateway: &gateway,
        run: run.id,
        id: Uuid::now_v7(),
        action: wanted.command,
        variations: &variations,
        told: 0,
    };
    // Told first: an agent may answer within a millisecond.
    story.tell(ControlState::Requested, Some(by), None).await?;
    let give = SendCommand {
        id: story.id,
        action: wanted.command,
        by,
        data,
        variations: &variations,
    };
    let keys = gateway.keys().run(run.id);
    let given = gateway
        .redis()
        .run(keys.slot, async |connection| {
            give.call(&keys, connection).await
        })
        .await?;
    if given == CommandResult::Full {
        let reason = format!(
            "too many commands wait to be taken: {MAX_PENDING_COMMANDS} of a run at most, counted for each variation"
        );
        story
            .tell(ControlState::Refused, None, Some(&reason))
            .await?;
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, reason));
    }
    let id = story.id;
    note(&gateway, &principal, &run, id, &wanted).await;
    tracing::info!(run = %run.id, command = %wanted.command, %id, by, "a command waits for its agents");
    let accepted = AcceptedCommand {
        id,
        command: wanted.command,
        variations,
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Writes down who gave which command, but not what input. The command waits already: without Postgres it is told by the
/// run stream, and in the log, alone.
async fn note(
    gateway: &Gateway,
    principal: &Principal,
    run: &Run,
    id: Uuid,
    wanted: &CommandRequest,
) {
    let details = json!({
        "command": wanted.command, "id": id, "variation": wanted.variation,
    });
    let (actor, target) = (principal.actor(), run.id.to_string());
    let noted = gateway
        .store()
        .audit(&actor, "run.control", &target, details);
    if let Err(error) = noted.await {
        tracing::error!(%error, run = target, %id, by = actor.name, "a command is missing in the audit log");
    }
}

/// The text that goes with the command.
fn data(wanted: &CommandRequest) -> Result<&str, Problem> {
    match (wanted.command, wanted.data.as_deref()) {
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
    let over = |status: &str| {
        let states = [Status::Succeeded, Status::Failed, Status::Cancelled];
        states.into_iter().any(|state| state.name() == status)
    };
    let is_meant = |index: u16| variation.is_none_or(|one| one == index);
    let meant: Vec<_> = run
        .variations
        .iter()
        .filter(|one| is_meant(one.index))
        .collect();
    if let ([], Some(variation)) = (&meant[..], variation) {
        let detail = format!("run {} has no variation {variation}", run.id);
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let open = meant.iter().filter(|one| !over(&one.status));
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

/// What the run stream tells of a command from here.
struct Story<'a> {
    gateway: &'a Gateway,
    run: Uuid,
    id: Uuid,
    action: Action,
    variations: &'a [u16],
    /// Events so far.
    told: u64,
}

impl Story<'_> {
    /// Publishes an event for each variation.
    async fn tell(
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
        let usual = Cap::default();
        let append = Append {
            producer: self.id,
            producer_epoch: 0,
            base: 0,
            acked: 0,
            first: self.told + 1,
            count: self.variations.len() as u64,
            body: Body::packed(&body),
            // A run that is full because nothing is stored at the moment can be cancelled all the same.
            cap: Cap {
                entries: usual.entries * 2,
                bytes: usual.bytes * 2,
            },
        };
        let keys = self.gateway.keys().run(self.run);
        let appended = self
            .gateway
            .redis()
            .run(keys.slot, async |connection| {
                append.call(&keys, connection).await
            })
            .await?;
        match appended.outcome {
            Outcome::Stored { .. } => {
                self.told += append.count;
                Ok(())
            }
            _ => Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "the run holds as much as it may until it is stored: try again later",
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
    fn only_input_has_data_and_not_too_much() {
        let wanted = |command, data: Option<&str>| CommandRequest {
            command,
            variation: None,
            data: data.map(str::to_owned),
        };
        assert_eq!(data(&wanted(Action::Cancel, None)), Ok(""));
        assert_eq!(data(&wanted(Action::Input, Some("y\n"))), Ok("y\n"));
        let long = "x".repeat(MAX_COMMAND_BYTES + 1);
        for (command, text) in [
            (Action::Cancel, Some("x")),
            (Action::Input, None),
            (Action::Input, Some("")),
            (Action::Input, Some(&*long)),
        ] {
            data(&wanted(command, text)).expect_err("refused");
        }
    }
}
