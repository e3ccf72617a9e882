//! A batch that waits in the queue: lines without seqs yet, and what was dropped in front of them.
//!
//! Which lines may be dropped is decided by their kind when they are written; a batch is searched
//! for them by the start of each line, which the publisher itself writes.

use runcast_common::protocol::event::{self, Gap, Kind};

/// What was dropped since the last gap event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) events: u64,
    /// Of their lines, without newlines.
    pub(crate) bytes: u64,
}

/// Lines that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) lines: Vec<u8>,
    pub(super) count: u64,
    /// How many of the lines may be dropped.
    pub(super) droppable: u64,
    /// What is missing in front of the lines.
    pub(super) dropped: Dropped,
}

/// The kinds that may be dropped, as the starts of their lines.
#[derive(Debug, Default)]
pub(super) struct Droppable(Vec<(Kind, Vec<u8>)>);

impl Droppable {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        let start = |kind: &Kind| (*kind, format!("{{\"kind\":\"{kind}\",").into_bytes());
        Self(kinds.iter().map(start).collect())
    }

    pub(super) fn holds(&self, kind: Kind) -> bool {
        self.0.iter().any(|(one, _start)| *one == kind)
    }

    fn holds_line(&self, line: &[u8]) -> bool {
        self.0.iter().any(|(_kind, start)| line.starts_with(start))
    }
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.dropped == Dropped::default()
    }

    /// Drops every line that may be; gives how many, and their bytes with newlines.
    pub(super) fn drop_lines(&mut self, droppable: &Droppable) -> Dropped {
        let mut kept = Vec::with_capacity(self.lines.len());
        let mut gone = Dropped::default();
        for line in self.lines.split_inclusive(|byte| *byte == b'\n') {
            if droppable.holds_line(line) {
                gone.events += 1;
                gone.bytes += line.len() as u64;
            } else {
                kept.extend_from_slice(line);
            }
        }
        self.lines = kept;
        self.count -= gone.events;
        self.droppable = 0;
        self.dropped.add(gone.events, gone.bytes - gone.events);
        gone
    }

    /// Lines ready to be sent: in front of them a gap event, if something was dropped.
    pub(super) fn into_lines(mut self, variation: u16) -> (u64, Vec<u8>) {
        if self.dropped == Dropped::default() {
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

impl Dropped {
    pub(super) fn add(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
    }
}

/// A gap event as a line with its newline.
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
        // A gap of three short fields always fits.
        tracing::error!(%error, "a gap could not be written");
        line.extend_from_slice(b"{\"kind\":\"gap\"}\n");
    }
    line
}
