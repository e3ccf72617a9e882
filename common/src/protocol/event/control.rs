//! What somebody wants of a run, and the `control` events that tell what became of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a run can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// End.
    Cancel,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Take this text.
    Input,
}

impl Action {
    /// All of them.
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

/// A text that names no action.
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

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlState {
    /// The gateway has taken it.
    Requested,
    /// The agent has it.
    Received,
    /// It is carried out.
    Done,
    /// It will not be carried out.
    Refused,
}

/// Payload of `control`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// What is wanted.
    pub command: Action,
    /// Which command it is: all its events carry the same. On the wire it is not `id`, which is that of
    /// the event wherever it is shown.
    #[serde(rename = "command_id")]
    pub id: Uuid,
    /// How far it has come.
    pub state: ControlState,
    /// Who wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_no_more_than_there_is_to_say() {
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
    fn actions_are_known_by_their_names() {
        for action in Action::ALL {
            assert_eq!(action.name().parse(), Ok(action));
        }
        assert_eq!("Cancel".parse::<Action>(), Err(UnknownAction));
    }
}
