//! What a chunk of the command's output says beyond its text: a log line in JSON, a group that begins
//! or ends, a level, how far the work has come.
//!
//! - `json`: lines that are one JSON object with a level and a message;
//! - `markers`: which markers are looked for;
//! - `gitlab`, `github`, `buildkite`: groups and levels, as the CI systems of these names have them;
//! - `progress`: percentages;
//! - `title`: the readable part of a marker line.
//!
//! The text is never changed: the pieces of a chunk, one after the other, are the chunk. A chunk has
//! more than one piece only where several section markers, or one and other text, share a line.
//!
//! Cost: a chunk that holds no marker is searched for one substring and one byte, and its first byte is
//! looked at. Data: a line that came in several chunks is kept for its marker, up to
//! [`MAX_LINE_BYTES`]; of a JSON line it takes a whole chunk.

mod buildkite;
mod github;
mod gitlab;
mod json;
pub mod markers;
pub(crate) mod progress;
mod title;

use std::borrow::Cow;

use runcast_common::protocol::event::{Group, Text};

use self::gitlab::Section;
use self::markers::Markers;
use self::progress::{Mark, Scanner};
use crate::workflow_command::Stops;

/// Longest line in which a marker is found though it came in several chunks.
const MAX_LINE_BYTES: usize = 4096;

/// What is known of a piece of text.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Notes<'a> {
    pub(crate) level: Option<&'static str>,
    pub(crate) message: Option<Cow<'a, str>>,
    pub(crate) is_json: bool,
    pub(crate) group: Option<Group<'a>>,
}

/// A piece of a chunk.
#[derive(Debug, PartialEq)]
pub(crate) struct Piece<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) notes: Notes<'a>,
}

impl Piece<'_> {
    /// The payload of its event.
    pub(crate) fn payload<'s>(&'s self, stream: &'s str) -> Text<'s> {
        let Notes {
            level,
            message,
            is_json,
            group,
        } = &self.notes;
        Text {
            level: *level,
            message: message.as_deref(),
            format: is_json.then_some("json"),
            group: group.clone(),
            ..Text::from_chunk(Some(stream), self.bytes)
        }
    }
}

/// Reads the chunks of one stream.
#[derive(Debug)]
pub(crate) struct Recogniser {
    markers: Markers,
    stops: Stops,
    progress: Scanner,
    line: Unfinished,
}

/// The line that the last chunk left without its end.
#[derive(Debug, PartialEq, Eq)]
enum Unfinished {
    /// There is none.
    None,
    /// What there is of it.
    Line(Vec<u8>),
    /// It is too long for a marker.
    Long,
}

impl Recogniser {
    pub(crate) fn new(markers: Markers) -> Self {
        Self {
            markers,
            stops: Stops::default(),
            progress: Scanner::default(),
            line: Unfinished::None,
        }
    }

    /// Reads the next chunk: its pieces, and what it says of progress, which goes to `tell`.
    pub(crate) fn read<'a>(&mut self, chunk: &'a [u8], mut tell: impl FnMut(Mark)) -> Pieces<'a> {
        if self.markers.any() {
            self.progress.scan(chunk, &mut tell);
        }
        let sections = match self.markers.gitlab {
            true => self.sections(chunk),
            false => Vec::new(),
        };
        let notes = match sections.is_empty() {
            true => self.notes(chunk, &mut tell),
            false => Notes::default(),
        };
        self.remember(chunk);
        Pieces {
            rest: chunk,
            at: 0,
            notes: Some(notes),
            sections: sections.into_iter(),
            next: None,
        }
    }

    /// Section markers that end in this chunk.
    fn sections<'a>(&self, chunk: &'a [u8]) -> Vec<Section<'a>> {
        match &self.line {
            Unfinished::Line(before) if gitlab::may_go_on(before) => {
                let line = [before, chunk].concat();
                let all = gitlab::sections(&line).into_iter();
                let here = all.filter(|section| section.end > before.len());
                here.map(|section| section.behind(before.len())).collect()
            }
            _ => gitlab::sections(chunk),
        }
    }

    /// What a whole line says, if the chunk ends one.
    fn notes<'a>(&mut self, chunk: &'a [u8], tell: &mut impl FnMut(Mark)) -> Notes<'a> {
        if chunk.last() != Some(&b'\n') {
            return Notes::default();
        }
        match &self.line {
            Unfinished::None => {
                let Some(first) = chunk.iter().find(|byte| !byte.is_ascii_whitespace()) else {
                    return Notes::default();
                };
                match first {
                    b'{' if chunk[0] == b'{' => json::read(chunk).unwrap_or_default(),
                    _ => self.marker(*first, chunk, tell).unwrap_or_default(),
                }
            }
            Unfinished::Line(before) => {
                let line = [before, chunk].concat();
                let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
                let Some(first) = first.copied() else {
                    return Notes::default();
                };
                let notes = self.marker(first, &line, tell).unwrap_or_default();
                notes.into_owned()
            }
            Unfinished::Long => Notes::default(),
        }
    }

    fn marker<'a>(
        &mut self,
        first: u8,
        line: &'a [u8],
        tell: &mut impl FnMut(Mark),
    ) -> Option<Notes<'a>> {
        match first {
            b':' | b'#' if self.markers.github => {
                if let Some(mark) = progress::set_progress(line) {
                    tell(mark);
                    return None;
                }
                github::read(line, &mut self.stops)
            }
            b'-' | b'+' | b'~' | b'^' | 0x1b if self.markers.buildkite => buildkite::read(line),
            _ => None,
        }
    }

    fn remember(&mut self, chunk: &[u8]) {
        if chunk.last() == Some(&b'\n') {
            self.line = Unfinished::None;
            return;
        }
        match &mut self.line {
            Unfinished::Line(line) if line.len() + chunk.len() <= MAX_LINE_BYTES => {
                line.extend_from_slice(chunk);
            }
            Unfinished::None if chunk.len() <= MAX_LINE_BYTES => {
                self.line = Unfinished::Line(chunk.to_vec());
            }
            line => *line = Unfinished::Long,
        }
    }
}

impl Notes<'_> {
    fn into_owned<'a>(self) -> Notes<'a> {
        Notes {
            level: self.level,
            message: self.message.map(|text| Cow::Owned(text.into_owned())),
            is_json: self.is_json,
            group: self.group.map(Group::into_owned),
        }
    }
}

/// The pieces of a chunk, in order.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the chunk.
    at: usize,
    /// Of the whole chunk, where it is one piece.
    notes: Option<Notes<'a>>,
    sections: std::vec::IntoIter<Section<'a>>,
    next: Option<Section<'a>>,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let section = self.next.take().or_else(|| self.sections.next());
        let Some(section) = section else {
            let bytes = std::mem::take(&mut self.rest);
            let notes = self.notes.take().unwrap_or_default();
            return Some(Piece { bytes, notes });
        };
        let (until, notes) = if section.start > self.at {
            let until = section.start;
            self.next = Some(section);
            (until, Notes::default())
        } else {
            self.next = self.sections.next();
            let until = self.next.as_ref().map(|next| next.start);
            let group = Some(section.group);
            let notes = Notes {
                group,
                ..Notes::default()
            };
            (until.unwrap_or(self.at + self.rest.len()), notes)
        };
        let (bytes, rest) = self
            .rest
            .split_at(until.saturating_sub(self.at).min(self.rest.len()));
        self.at += bytes.len();
        self.rest = rest;
        Some(Piece { bytes, notes })
    }
}

#[cfg(test)]
mod tests;
