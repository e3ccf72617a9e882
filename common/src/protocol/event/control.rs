//! Payload of `control`: a command to a run and its progress.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The commands that a run accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// End the run.
    Cancel,
    /// Suspend it.
    Pause,
    /// Continue after [`Action::Pause`].
    Resume,
    /// Write a text to its input.
    Input,
}

impl Action {
    /// All commands.
    pub const ALL: [Self; 4] = [Self::Cancel, Self::Pause, Self::Resume, Self::Input];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Input => "input",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text does not name a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected cancel, pause, resume or input")]
pub struct UnknownAction;

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.into_iter().find(|action| action.name() == text);
        found.ok_or(UnknownAction)
    }
}

/// The progress of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlState {
    /// The gateway has accepted it.
    Requested,
    /// The agent has received it.
    Received,
    /// The agent has executed it.
    Done,
    /// It will not be executed.
    Refused,
}

/// Payload of `control`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The command.
    pub command: Action,
    /// Id of the command, the same in all its events. On the wire it is not `id`, because that is
    /// the id of the event.
    #[serde(rename = "command_id")]
    pub id: Uuid,
    /// Its progress.
    pub state: ControlState,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_are_not_serialized() {
        let event = Control {
            command: Action::Cancel,
            id: Uuid::nil(),
            state: ControlState::Done,
            by: None,
            reason: None,
        };
        assert_eq!(
            serde_json::to_string(&event).expect("JSON"),
            r#"{"command":"cancel","command_id":"00000000-0000-0000-0000-000000000000","state":"done"}"#
        );
    }

    #[test]
    fn actions_round_trip_by_name() {
        for action in Action::ALL {
            assert_eq!(action.name().parse(), Ok(action));
        }
        assert_eq!("Cancel".parse::<Action>(), Err(UnknownAction));
    }
}
