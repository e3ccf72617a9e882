//! Our own terminal, if we have one: its size, and its raw mode while the command runs under a terminal
//! of its own.
//!
//! In raw mode every key goes to the command, Ctrl-C included: its terminal makes signals of them. The mode
//! is put back whenever we stop or end, also by a panic. Only SIGKILL leaves it; then the shell puts it back,
//! or `stty sane` does.
//!
//! A terminal is only touched while our process group stands in its foreground: as a background job we
//! would take it from whoever uses it.

use std::io::{self, Stdin, stderr, stdin, stdout};
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use runcast_common::config::Env;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, Winsize, isatty, tcgetattr, tcgetpgrp, tcgetwinsize,
    tcsetattr,
};

/// Size where there is no terminal to ask. Programs cut and wrap what they write to the width, and what is cut
/// off is in no log: 80 columns, the custom of terminals, are too few for that.
const DEFAULT_COLUMNS: u16 = 120;
const DEFAULT_ROWS: u16 = 40;

/// The size for the command's terminal: that of our own one, else of COLUMNS and LINES, else a default.
pub(crate) fn size(env: &impl Env) -> Winsize {
    if let Some(size) = own_size() {
        return size;
    }
    let number = |name| {
        let value = env.get(name)?;
        value.trim().parse().ok().filter(|&number| number > 0_u16)
    };
    Winsize {
        ws_col: number("COLUMNS").unwrap_or(DEFAULT_COLUMNS),
        ws_row: number("LINES").unwrap_or(DEFAULT_ROWS),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The size of the first of our streams that is a terminal and knows one.
pub(crate) fn own_size() -> Option<Winsize> {
    let sizes = [
        tcgetwinsize(stdin()),
        tcgetwinsize(stdout()),
        tcgetwinsize(stderr()),
    ];
    let known = sizes.into_iter().flatten();
    known
        .into_iter()
        .find(|size| size.ws_col > 0 && size.ws_row > 0)
}

/// The keys and settings of our own terminal, as somebody may have set them by `stty`; none in the background, where
/// they are those of somebody else.
pub(crate) fn own_modes() -> Option<Termios> {
    let modes = tcgetattr(stdin()).ok();
    modes.filter(|_| in_foreground(stdin()))
}

/// True if our output is a terminal, which the command's terminal then has to write for.
pub(crate) fn shows_output() -> bool {
    isatty(stdout())
}

/// True if our stdin is a terminal in whose background we are, so that it is not ours to read.
pub(crate) fn in_background() -> bool {
    isatty(stdin()) && !in_foreground(stdin())
}

fn in_foreground(terminal: impl AsFd) -> bool {
    let group = rustix::process::getpgrp();
    tcgetpgrp(terminal).is_ok_and(|foreground| foreground == group)
}

/// The raw mode of our stdin, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct RawMode {
    terminal: Stdin,
    before: Termios,
    raw: Termios,
}

impl RawMode {
    /// Enters it, if our stdin is a terminal in whose foreground we are.
    ///
    /// # Errors
    /// If the terminal refuses.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let terminal = stdin();
        if !isatty(&terminal) || !in_foreground(&terminal) {
            return Ok(None);
        }
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        if !shows_output() {
            // What others write to it (`| less`) shall look as it does without us.
            raw.output_modes |= before.output_modes & OutputModes::OPOST;
        }
        let mode = Self {
            terminal,
            before,
            raw,
        };
        mode.again();
        Ok(Some(mode))
    }

    /// Enters it again, after somebody else has changed it.
    pub(crate) fn again(&self) {
        self.set(&self.raw);
    }

    fn set(&self, mode: &Termios) {
        if !in_foreground(&self.terminal) {
            return;
        }
        // Should we be sent into the background in this moment, we shall not be stopped for it.
        let stops = SigSet::from(Signal::SIGTTOU);
        let blocked = stops.thread_block();
        // At once: a terminal that is held by Ctrl-S shall not hold us.
        if let Err(error) = tcsetattr(&self.terminal, OptionalActions::Now, mode) {
            tracing::warn!(%error, "the mode of the terminal cannot be set");
        }
        if blocked.is_ok()
            && let Err(error) = stops.thread_unblock()
        {
            tracing::warn!(%error, "SIGTTOU stays blocked");
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.set(&self.before);
    }
}
