//! GitHub's [workflow commands](runcast_redact::workflow_command) for readers of the output, and
//! those of Azure Pipelines, which are the same in the syntax with brackets ("Formatting commands",
//! learn.microsoft.com):
//!
//! - `::group::TITLE` and `::endgroup::`, `##[group]TITLE` and `##[endgroup]`. Groups do not nest:
//!   a new one ends the previous one. They are collapsed, as on both systems;
//! - `::error PROPERTIES::MESSAGE`, `::warning`, `::notice` and `::debug`, and the same with
//!   brackets: a level and a message;
//! - `::stop-commands::TOKEN`, up to `::TOKEN::`: disables all of these;
//! - `::add-mask::VALUE` is handled earlier, by [`RedactStream`](runcast_redact::RedactStream).

use std::borrow::Cow;

use runcast_common::protocol::event::{Group, GroupState};
use runcast_redact::workflow_command::{StopCommands, WorkflowCommand};

use super::detector::Annotations;
use super::title::title;

/// Longest message. A chunk of control characters fills three quarters of an event by itself, and
/// the text contains all of it anyway.
const MAX_MESSAGE_BYTES: usize = 4096;

/// The id of all groups: one starts where another ends.
const GROUP_ID: &str = "github";

/// Parses a line that starts with `:` or `#`.
pub(super) fn read<'a>(
    line: &'a [u8],
    stop_commands: &mut StopCommands,
) -> Option<Annotations<'a>> {
    let command = WorkflowCommand::parse(line)?;
    if !stop_commands.accepts(&command) {
        return None;
    }
    let levels = [
        ("error", "error"),
        ("warning", "warn"),
        ("notice", "info"),
        ("debug", "debug"),
    ];
    if let Some((_, level)) = levels.iter().find(|(name, _)| command.is(name)) {
        let mut message = String::from_utf8_lossy(&command.data).into_owned();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        return Some(Annotations {
            level: Some(level),
            message: Some(Cow::Owned(message)),
            ..Annotations::default()
        });
    }
    let group = if command.is("group") {
        let title = title(&command.data);
        Group {
            state: GroupState::Start,
            id: Cow::Borrowed(GROUP_ID),
            title: (!title.is_empty()).then_some(Cow::Owned(title)),
            collapsed: true,
            muted: false,
        }
    } else if command.is("endgroup") {
        Group::ending(GROUP_ID)
    } else {
        return None;
    };
    Some(Annotations {
        group: Some(group),
        ..Annotations::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &str) -> Vec<String> {
        let mut stop_commands = StopCommands::default();
        let mut found = Vec::new();
        for line in lines.lines() {
            let Some(notes) = read(line.as_bytes(), &mut stop_commands) else {
                continue;
            };
            let level = notes.level.unwrap_or_default();
            let message = notes.message.unwrap_or_default();
            let group = notes.group.map(|group| match group.state {
                GroupState::Start => format!("start {}", group.title.unwrap_or_default()),
                _ => "end".to_owned(),
            });
            found.push(format!(
                "{level}{}{message}",
                group.unwrap_or(":".to_owned())
            ));
        }
        found
    }

    #[test]
    fn groups_and_levels_are_parsed_unless_commands_are_stopped() {
        let lines = "::group::Build it\n##[endgroup]\n::error file=a.js,line=1::Missing%0Asemicolon\n\
                     ::WARNING::w\n##[debug]d\n::notice title=t::n\n::set-output name=a::b\n\
                     ::stop-commands::x1\n::error::no\n::group::no\n::x1::\n::endgroup::\nx ::group::no";
        let expected = [
            "start Build it",
            "end",
            "error:Missing\nsemicolon",
            "warn:w",
            "debug:d",
            "info:n",
            "end",
        ];
        assert_eq!(of(lines), expected);
    }
}
