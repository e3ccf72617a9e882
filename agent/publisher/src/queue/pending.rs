//! A batch that waits in the queue: lines without seqs, and what was dropped in front of them.
//!
//! A line is droppable by its kind. To drop lines, a batch looks at the start of each line, which
//! the publisher itself has written.

use runcast_common::protocol::event::{self, Gap, Kind};

/// Events that were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DroppedEvents {
    pub(super) events: u64,
    /// Of their lines, without newlines.
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct PendingBatch {
    pub(super) lines: Vec<u8>,
    pub(super) count: u64,
    /// How many of the lines may be dropped.
    pub(super) droppable: u64,
    /// What was dropped in front of the lines.
    pub(super) dropped: DroppedEvents,
}

/// Kinds that may be dropped, with how their lines start.
#[derive(Debug, Default)]
pub(super) struct DroppableKinds(Vec<(Kind, Vec<u8>)>);

impl DroppableKinds {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        let start = |kind: &Kind| (*kind, format!("{{\"kind\":\"{kind}\",").into_bytes());
        Self(kinds.iter().map(start).collect())
    }

    pub(super) fn contains(&self, kind: Kind) -> bool {
        self.0.iter().any(|(one, _start)| *one == kind)
    }

    fn contains_line(&self, line: &[u8]) -> bool {
        self.0.iter().any(|(_kind, start)| line.starts_with(start))
    }
}

impl PendingBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.dropped == DroppedEvents::default()
    }

    /// Drops every droppable line. Returns how many, and their bytes with newlines.
    pub(super) fn drop_lines(&mut self, droppable: &DroppableKinds) -> DroppedEvents {
        let mut rest = Vec::with_capacity(self.lines.len());
        let mut dropped = DroppedEvents::default();
        for line in self.lines.split_inclusive(|byte| *byte == b'\n') {
            if droppable.contains_line(line) {
                dropped.events += 1;
                dropped.bytes += line.len() as u64;
            } else {
                rest.extend_from_slice(line);
            }
        }
        self.lines = rest;
        self.count -= dropped.events;
        self.droppable = 0;
        self.dropped
            .add(dropped.events, dropped.bytes - dropped.events);
        dropped
    }

    /// The number of lines and the lines to send, with a `gap` event in front if any were dropped.
    pub(super) fn into_lines(mut self, variation: u16) -> (u64, Vec<u8>) {
        if self.dropped == DroppedEvents::default() {
            return (self.count, self.lines);
        }
        let mut all = gap_line(
            variation,
            Some(self.dropped.events),
            self.dropped.bytes,
            "overflow",
        );
        all.append(&mut self.lines);
        (self.count + 1, all)
    }
}

impl DroppedEvents {
    pub(super) fn add(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
    }
}

/// A `gap` event as a line with its newline.
pub(crate) fn gap_line(variation: u16, count: Option<u64>, bytes: u64, reason: &str) -> Vec<u8> {
    let gap = Gap {
        count,
        bytes,
        reason,
        after: None,
        next: None,
    };
    let mut line = Vec::new();
    if let Err(error) = event::write_line(&mut line, Kind::Gap, variation, event::now_ms(), &gap) {
        // Cannot happen: a gap of three short fields always fits.
        tracing::error!(%error, "a gap event could not be written");
        line.extend_from_slice(b"{\"kind\":\"gap\"}\n");
    }
    line
}
