//! [`Detector`]: reads the chunks of one stream, and finds markers in them.
//!
//! The text is never changed: the pieces of a chunk, joined, are the chunk. A chunk has more than
//! one piece only if several section markers, or a marker and other text, share a line.
//!
//! Cost: a chunk without markers is searched for one substring and one byte, and its first byte is
//! checked. Data: a line that arrives in several chunks is kept for its marker, up to
//! [`MAX_LINE_BYTES`]. A JSON line is only detected in one chunk.

use std::borrow::Cow;

use runcast_common::protocol::event::{Group, Text};
use runcast_redact::workflow_command::StopCommands;

use super::gitlab::SectionMarker;
use super::markers::Markers;
use super::progress::{ProgressMark, ProgressScanner};
use super::{buildkite, github, gitlab, json, progress};

/// Longest line that is searched for a marker if it arrived in several chunks.
const MAX_LINE_BYTES: usize = 4096;

/// What is known of a piece beyond its text.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Annotations<'a> {
    pub(crate) level: Option<&'static str>,
    pub(crate) message: Option<Cow<'a, str>>,
    pub(crate) is_json: bool,
    pub(crate) group: Option<Group<'a>>,
}

/// A piece of a chunk.
#[derive(Debug, PartialEq)]
pub(crate) struct Piece<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) annotations: Annotations<'a>,
}

impl Piece<'_> {
    /// The payload of its event.
    pub(crate) fn payload<'s>(&'s self, stream: &'s str) -> Text<'s> {
        let Annotations {
            level,
            message,
            is_json,
            group,
        } = &self.annotations;
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
pub(crate) struct Detector {
    markers: Markers,
    stop_commands: StopCommands,
    progress: ProgressScanner,
    line: OpenLine,
}

/// The unfinished line at the end of the last chunk.
#[derive(Debug, PartialEq, Eq)]
enum OpenLine {
    /// None: the chunk ended with a newline.
    None,
    /// The line so far.
    Line(Vec<u8>),
    /// Too long for a marker.
    TooLong,
}

impl Detector {
    pub(crate) fn new(markers: Markers) -> Self {
        Self {
            markers,
            stop_commands: StopCommands::default(),
            progress: ProgressScanner::default(),
            line: OpenLine::None,
        }
    }

    /// Reads the next chunk. Returns its pieces, and passes progress marks to `report`.
    pub(crate) fn read<'a>(
        &mut self,
        chunk: &'a [u8],
        mut report: impl FnMut(ProgressMark),
    ) -> Pieces<'a> {
        if self.markers.any() {
            self.progress.scan(chunk, &mut report);
        }
        let sections = match self.markers.gitlab {
            true => self.sections(chunk),
            false => Vec::new(),
        };
        let annotations = match sections.is_empty() {
            true => self.annotations(chunk, &mut report),
            false => Annotations::default(),
        };
        self.remember(chunk);
        Pieces {
            rest: chunk,
            at: 0,
            annotations: Some(annotations),
            sections: sections.into_iter(),
            next: None,
        }
    }

    /// SectionMarker markers that end in this chunk.
    fn sections<'a>(&self, chunk: &'a [u8]) -> Vec<SectionMarker<'a>> {
        match &self.line {
            OpenLine::Line(before) if gitlab::may_continue(before) => {
                let line = [before, chunk].concat();
                let all = gitlab::sections(&line).into_iter();
                let here = all.filter(|section| section.end > before.len());
                here.map(|section| section.without_prefix(before.len()))
                    .collect()
            }
            _ => gitlab::sections(chunk),
        }
    }

    /// The annotations of a complete line, if the chunk ends one.
    fn annotations<'a>(
        &mut self,
        chunk: &'a [u8],
        report: &mut impl FnMut(ProgressMark),
    ) -> Annotations<'a> {
        if chunk.last() != Some(&b'\n') {
            return Annotations::default();
        }
        match &self.line {
            OpenLine::None => {
                let line = without_bom(chunk);
                let Some(first) = line.iter().find(|byte| !byte.is_ascii_whitespace()) else {
                    return Annotations::default();
                };
                match first {
                    b'{' if line[0] == b'{' => json::read(line).unwrap_or_default(),
                    _ => self.read_marker(*first, line, report).unwrap_or_default(),
                }
            }
            OpenLine::Line(before) => {
                let line = [before, chunk].concat();
                let line = without_bom(&line);
                let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
                let Some(first) = first.copied() else {
                    return Annotations::default();
                };
                let annotations = self.read_marker(first, line, report).unwrap_or_default();
                annotations.into_owned()
            }
            OpenLine::TooLong => Annotations::default(),
        }
    }

    fn read_marker<'a>(
        &mut self,
        first: u8,
        line: &'a [u8],
        report: &mut impl FnMut(ProgressMark),
    ) -> Option<Annotations<'a>> {
        match first {
            b':' | b'#' if self.markers.github => {
                if let Some(mark) = progress::set_progress(line) {
                    report(mark);
                    return None;
                }
                github::read(line, &mut self.stop_commands)
            }
            b'-' | b'+' | b'~' | b'^' | 0x1b if self.markers.buildkite => buildkite::read(line),
            _ => None,
        }
    }

    fn remember(&mut self, chunk: &[u8]) {
        if chunk.last() == Some(&b'\n') {
            self.line = OpenLine::None;
            return;
        }
        match &mut self.line {
            OpenLine::Line(line) if line.len() + chunk.len() <= MAX_LINE_BYTES => {
                line.extend_from_slice(chunk);
            }
            OpenLine::None if chunk.len() <= MAX_LINE_BYTES => {
                self.line = OpenLine::Line(chunk.to_vec());
            }
            line => *line = OpenLine::TooLong,
        }
    }
}

/// A line without the byte order mark that some programs write at its start.
fn without_bom(line: &[u8]) -> &[u8] {
    line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
}

impl Annotations<'_> {
    fn into_owned<'a>(self) -> Annotations<'a> {
        Annotations {
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
    /// Where `rest` starts in the chunk.
    at: usize,
    /// The annotations of the whole chunk, if it is one piece.
    annotations: Option<Annotations<'a>>,
    sections: std::vec::IntoIter<SectionMarker<'a>>,
    next: Option<SectionMarker<'a>>,
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
            let annotations = self.annotations.take().unwrap_or_default();
            return Some(Piece { bytes, annotations });
        };
        let (until, annotations) = if section.start > self.at {
            let until = section.start;
            self.next = Some(section);
            (until, Annotations::default())
        } else {
            self.next = self.sections.next();
            let until = self.next.as_ref().map(|next| next.start);
            let group = Some(section.group);
            let annotations = Annotations {
                group,
                ..Annotations::default()
            };
            (until.unwrap_or(self.at + self.rest.len()), annotations)
        };
        let (bytes, rest) = self
            .rest
            .split_at(until.saturating_sub(self.at).min(self.rest.len()));
        self.at += bytes.len();
        self.rest = rest;
        Some(Piece { bytes, annotations })
    }
}
