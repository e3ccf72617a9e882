//! What an export reports: a progress line on a terminal, and a summary at the end.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Shortest time between two progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) hours: u64,
    /// Hours that an earlier, interrupted export had completed.
    pub(crate) skipped_hours: u64,
    pub(crate) runs: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hours,
            skipped_hours,
            runs,
            events,
            bytes,
        } = self;
        write!(
            f,
            "{runs} runs and {events} events of {hours} hours written, {bytes} bytes"
        )?;
        if *skipped_hours > 0 {
            write!(f, "; {skipped_hours} hours were there already")?;
        }
        Ok(())
    }
}

/// One line on stderr that changes, if stderr is a terminal.
pub(crate) struct ProgressLine {
    is_visible: bool,
    printed_at: Option<Instant>,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self {
            is_visible: std::io::stderr().is_terminal(),
            printed_at: None,
        }
    }

    /// Prints how far the export is, at most once in [`PROGRESS_INTERVAL`].
    pub(crate) fn update(&mut self, path: &Path, summary: &Summary) {
        let is_recent = |printed: Instant| printed.elapsed() < PROGRESS_INTERVAL;
        if !self.is_visible || self.printed_at.is_some_and(is_recent) {
            return;
        }
        self.printed_at = Some(Instant::now());
        let hour = path.file_stem().unwrap_or_default().to_string_lossy();
        let Summary { runs, events, .. } = summary;
        self.print(&format!("\r\x1b[K{hour}: {runs} runs, {events} events"));
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        if self.printed_at.is_some() {
            self.print("\r\x1b[K");
        }
    }

    /// If the terminal is gone, nothing more is printed.
    fn print(&mut self, text: &str) {
        let mut out = std::io::stderr().lock();
        self.is_visible = out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_ok();
    }
}
