//! Values that the command itself names as secret: `::add-mask::VALUE`, a
//! [workflow command](crate::workflow_command) as GitHub has it.
//!
//! The line is found before anything is given out of it: what stands behind `::add-mask::` is taken out
//! of the stream at once, whether the line is complete or not, and whether or not the value can be
//! redacted from then on. Everything else passes unchanged.
//!
//! Data: the beginning of the current line, where it may be a command, at most [`MAX_HEAD_BYTES`]; and
//! the value, at most [`MAX_VALUE_BYTES`]. What is longer is taken out all the same.

use memchr::memchr;

use crate::workflow_command::{Command, Stops, data_of};

const NAME: &str = "add-mask";

/// Longest beginning of a line in which a command is looked for.
const MAX_HEAD_BYTES: usize = 4096;

/// Bytes of a value that are kept: more than the longest that can be redacted, with its escapes.
const MAX_VALUE_BYTES: usize = 3 * super::value::MAX_BYTES + 1;

/// What the stream is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// To be passed on.
    Text(&'a [u8]),
    /// Here a value was taken out.
    Masked,
    /// The value, now that it is complete.
    Value(Vec<u8>),
}

/// Finds the values in one stream.
#[derive(Debug, Default)]
pub(super) struct MaskCommands {
    stops: Stops,
    line: Line,
}

/// Where in a line the stream stands.
#[derive(Debug, Default)]
enum Line {
    /// At its beginning, or behind spaces there.
    #[default]
    Start,
    /// It is no command.
    Plain,
    /// It begins as a command does.
    Head(Vec<u8>),
    /// The value begins here.
    Found(Vec<u8>),
    /// In the value, which stands behind the line's beginning.
    Value(Vec<u8>),
}

impl MaskCommands {
    /// Takes the next part off the front of `rest`; none when nothing more can be said.
    pub(super) fn next<'a>(&mut self, rest: &mut &'a [u8]) -> Option<Part<'a>> {
        match std::mem::take(&mut self.line) {
            Line::Found(line) => {
                self.line = Line::Value(line);
                return Some(Part::Masked);
            }
            Line::Value(mut line) => {
                let bytes = *rest;
                let end = memchr(b'\n', bytes);
                let value = &bytes[..end.unwrap_or(bytes.len())];
                let room = (MAX_HEAD_BYTES + MAX_VALUE_BYTES).saturating_sub(line.len());
                line.extend_from_slice(&value[..room.min(value.len())]);
                *rest = &bytes[value.len()..];
                if end.is_some() {
                    return Some(Part::Value(value_of(&line)));
                }
                self.line = Line::Value(line);
                return None;
            }
            line => self.line = line,
        }
        let bytes = *rest;
        let length = self.text(bytes);
        *rest = &bytes[length..];
        match &self.line {
            Line::Found(_) if length == 0 => self.next(rest),
            _ => (length > 0).then(|| Part::Text(&bytes[..length])),
        }
    }

    /// A value whose line did not end, at the end of the stream.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        match self.line {
            Line::Value(line) => Some(value_of(&line)),
            _ => None,
        }
    }

    /// How many bytes can be passed on before the next value.
    fn text(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let end = memchr(b'\n', &bytes[at..]).map(|found| at + found + 1);
            let piece = &bytes[at..end.unwrap_or(bytes.len())];
            if matches!(self.line, Line::Start) {
                let text = piece.trim_ascii_start();
                match text.first() {
                    // Only spaces so far.
                    None if end.is_none() => {}
                    Some(b':' | b'#') => {
                        self.line = Line::Head(Vec::new());
                        at += piece.len() - text.len();
                        continue;
                    }
                    _ => self.line = Line::Plain,
                }
            } else if let Line::Head(head) = &mut self.line {
                let known = head.len();
                let room = MAX_HEAD_BYTES.saturating_sub(known).min(piece.len());
                head.extend_from_slice(&piece[..room]);
                if let Some(value) = data_of(head, NAME).filter(|_| !self.stops.are_stopped()) {
                    head.truncate(value);
                    self.line = Line::Found(std::mem::take(head));
                    return at + value.saturating_sub(known);
                }
                if end.is_some()
                    && let Some(command) = Command::parse(head)
                {
                    self.stops.obeys(&command);
                }
                if head.len() >= MAX_HEAD_BYTES {
                    self.line = Line::Plain;
                }
            }
            at += piece.len();
            if end.is_some() {
                self.line = Line::Start;
            }
        }
        at
    }
}

fn value_of(line: &[u8]) -> Vec<u8> {
    Command::parse(line).map_or_else(Vec::new, |command| command.data.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on, with `*` for a value that was taken out, and the values.
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
    fn values_are_taken_out_wherever_the_pieces_are_cut() {
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
    fn what_is_too_long_is_taken_out_all_the_same() {
        let long = format!("::add-mask::{}\nend", "x".repeat(200_000));
        let (text, values) = read(&[&long]);
        assert_eq!(text, "::add-mask::*\nend");
        assert!(values[0].len() <= MAX_HEAD_BYTES + MAX_VALUE_BYTES);
        assert!(values[0].len() > super::super::value::MAX_BYTES);
    }
}
