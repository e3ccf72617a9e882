//! Values that the command itself names as secret with `::add-mask::VALUE`, a
//! [workflow command](crate::workflow_command) of GitHub.
//!
//! The line is recognized before any of it is passed on: whatever follows `::add-mask::` is removed
//! from the stream at once, whether or not the line is complete, and whether or not the value can
//! be redacted later. Everything else passes unchanged.
//!
//! Data: the start of the current line while it may be a command, at most [`MAX_HEAD_BYTES`]; and
//! the value, at most [`MAX_VALUE_BYTES`]. A longer value is removed too.

use memchr::memchr;

use crate::secret_value::MAX_SECRET_BYTES;
use crate::workflow_command::{StopCommands, WorkflowCommand, data_start};

const ADD_MASK: &str = "add-mask";

/// Longest start of a line that is searched for a command.
const MAX_HEAD_BYTES: usize = 4096;

/// Bytes of a value that are stored: more than the longest one that can be redacted, with its
/// escapes.
const MAX_VALUE_BYTES: usize = 3 * MAX_SECRET_BYTES + 1;

/// A part of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// To be passed on.
    Text(&'a [u8]),
    /// A value was removed here.
    Masked,
    /// The removed value, now that it is complete.
    Value(Vec<u8>),
}

/// Removes the named values from one stream.
#[derive(Debug, Default)]
pub(super) struct MaskCommands {
    stop_commands: StopCommands,
    line: LineState,
}

/// Where in a line the stream is.
#[derive(Debug, Default)]
enum LineState {
    /// At its start, or behind spaces there.
    #[default]
    Start,
    /// In a line that is not a command.
    Plain,
    /// In a line that may be a command.
    Head(Vec<u8>),
    /// Directly before the value; the start of the line.
    BeforeValue(Vec<u8>),
    /// In the value; the start of the line and the value so far.
    Value(Vec<u8>),
}

impl MaskCommands {
    /// Takes the next part from the front of `rest`; none if that needs more bytes.
    pub(super) fn next<'a>(&mut self, rest: &mut &'a [u8]) -> Option<Part<'a>> {
        match std::mem::take(&mut self.line) {
            LineState::BeforeValue(line) => {
                self.line = LineState::Value(line);
                return Some(Part::Masked);
            }
            LineState::Value(mut line) => {
                let bytes = *rest;
                let end = memchr(b'\n', bytes);
                let value = &bytes[..end.unwrap_or(bytes.len())];
                let room = (MAX_HEAD_BYTES + MAX_VALUE_BYTES).saturating_sub(line.len());
                line.extend_from_slice(&value[..room.min(value.len())]);
                *rest = &bytes[value.len()..];
                if end.is_some() {
                    return Some(Part::Value(value_of(&line)));
                }
                self.line = LineState::Value(line);
                return None;
            }
            line => self.line = line,
        }
        let bytes = *rest;
        let length = self.text_length(bytes);
        *rest = &bytes[length..];
        match &self.line {
            LineState::BeforeValue(_) if length == 0 => self.next(rest),
            _ => (length > 0).then(|| Part::Text(&bytes[..length])),
        }
    }

    /// The value of an unfinished line, at the end of the stream.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        match self.line {
            LineState::Value(line) => Some(value_of(&line)),
            _ => None,
        }
    }

    /// How many bytes can be passed on before the next value.
    fn text_length(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let end = memchr(b'\n', &bytes[at..]).map(|found| at + found + 1);
            let piece = &bytes[at..end.unwrap_or(bytes.len())];
            if matches!(self.line, LineState::Start) {
                let text = piece.trim_ascii_start();
                match text.first() {
                    // Only spaces so far.
                    None if end.is_none() => {}
                    Some(b':' | b'#') => {
                        self.line = LineState::Head(Vec::new());
                        at += piece.len() - text.len();
                        continue;
                    }
                    _ => self.line = LineState::Plain,
                }
            } else if let LineState::Head(head) = &mut self.line {
                let length_before = head.len();
                let room = MAX_HEAD_BYTES
                    .saturating_sub(length_before)
                    .min(piece.len());
                head.extend_from_slice(&piece[..room]);
                if let Some(value) =
                    data_start(head, ADD_MASK).filter(|_| !self.stop_commands.is_stopped())
                {
                    head.truncate(value);
                    self.line = LineState::BeforeValue(std::mem::take(head));
                    return at + value.saturating_sub(length_before);
                }
                if end.is_some()
                    && let Some(command) = WorkflowCommand::parse(head)
                {
                    self.stop_commands.accepts(&command);
                }
                if head.len() >= MAX_HEAD_BYTES {
                    self.line = LineState::Plain;
                }
            }
            at += piece.len();
            if end.is_some() {
                self.line = LineState::Start;
            }
        }
        at
    }
}

fn value_of(line: &[u8]) -> Vec<u8> {
    WorkflowCommand::parse(line).map_or_else(Vec::new, |command| command.data.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that is passed on, with `*` for each removed value, and the values.
    fn read(pieces: &[&str]) -> (String, Vec<String>) {
        let mut commands = MaskCommands::default();
        let (mut text, mut values) = (String::new(), Vec::new());
        let owned = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        for piece in pieces {
            let mut rest = piece.as_bytes();
            while let Some(part) = commands.next(&mut rest) {
                match part {
                    Part::Text(bytes) => text.push_str(std::str::from_utf8(bytes).expect("text")),
                    Part::Masked => text.push('*'),
                    Part::Value(value) => values.push(owned(value)),
                }
            }
            assert_eq!(rest, b"");
        }
        values.extend(commands.finish().map(owned));
        (text, values)
    }

    const TEXT: &str = "a ::add-mask::no\n  ::Add-Mask::one%0Atwo\nb\n::group::x\n##[add-mask]three\n\
                        ::stop-commands::tok\n::add-mask::stopped\n::tok::\n::add-mask::four\r\nc\n::add-mask::five";

    #[test]
    fn values_are_removed_wherever_the_pieces_are_cut() {
        let expected = "a ::add-mask::no\n  ::Add-Mask::*\nb\n::group::x\n##[add-mask]*\n\
                        ::stop-commands::tok\n::add-mask::stopped\n::tok::\n::add-mask::*\nc\n::add-mask::*";
        let values = ["one\ntwo", "three", "four", "five"].map(str::to_owned);
        for one in 0..=TEXT.len() {
            for two in (one..=TEXT.len()).step_by(7) {
                let (text, found) = read(&[&TEXT[..one], &TEXT[one..two], &TEXT[two..]]);
                assert_eq!(text, expected, "{one} {two}");
                assert_eq!(found, values);
            }
        }
        let bytes: Vec<String> = TEXT.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(read(&bytes).0, expected);
    }

    #[test]
    fn a_value_that_is_too_long_is_removed_too() {
        let long = format!("::add-mask::{}\nend", "x".repeat(200_000));
        let (text, values) = read(&[&long]);
        assert_eq!(text, "::add-mask::*\nend");
        assert!(values[0].len() <= MAX_HEAD_BYTES + MAX_VALUE_BYTES);
        assert!(values[0].len() > MAX_SECRET_BYTES);
    }
}
