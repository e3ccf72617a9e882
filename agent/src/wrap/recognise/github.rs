//! GitHub's [workflow commands](crate::workflow_command) that say something to a reader, and those of
//! Azure Pipelines, which has the same ones with brackets ("Formatting commands", learn.microsoft.com):
//!
//! - `::group::TITLE` and `::endgroup::`, `##[group]TITLE` and `##[endgroup]`. Groups are not nested: a
//!   new one ends the one before. They are folded, as both show them;
//! - `::error PROPERTIES::MESSAGE`, `::warning`, `::notice` and `::debug`, and the same with brackets:
//!   a level and a message;
//! - `::stop-commands::TOKEN`, up to `::TOKEN::`: nothing of this counts;
//! - `::add-mask::VALUE` is obeyed earlier, in [`redact`](crate::redact).

use std::borrow::Cow;

use runcast_common::protocol::event::{Group, GroupState};

use super::Notes;
use super::title::title;
use crate::workflow_command::{Command, Stops};

/// Longest message in bytes. A chunk of control characters fills three quarters of an event by itself,
/// and all of it is in the text.
const MAX_MESSAGE_BYTES: usize = 4096;

/// All groups have it: one begins where another ends.
const ID: &str = "github";

/// What a line says that begins with `:` or `#`.
pub(super) fn read<'a>(line: &'a [u8], stops: &mut Stops) -> Option<Notes<'a>> {
    let command = Command::parse(line)?;
    if !stops.obeys(&command) {
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
        return Some(Notes {
            level: Some(level),
            message: Some(Cow::Owned(message)),
            ..Notes::default()
        });
    }
    let group = if command.is("group") {
        let title = title(&command.data);
        Group {
            state: GroupState::Start,
            id: Cow::Borrowed(ID),
            title: (!title.is_empty()).then_some(Cow::Owned(title)),
            collapsed: true,
            muted: false,
        }
    } else if command.is("endgroup") {
        Group::ending(ID)
    } else {
        return None;
    };
    Some(Notes {
        group: Some(group),
        ..Notes::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &str) -> Vec<String> {
        let mut stops = Stops::default();
        let mut found = Vec::new();
        for line in lines.lines() {
            let Some(notes) = read(line.as_bytes(), &mut stops) else {
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
    fn groups_and_levels_are_read_unless_commands_are_stopped() {
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
