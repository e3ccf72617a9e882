//! The terminal of `runcast` itself, if it has one: its size, and its raw mode while the command
//! runs in a terminal of its own.
//!
//! In raw mode every key goes to the command, including Ctrl-C: its terminal turns keys into
//! signals. The previous mode is restored whenever `runcast` stops or ends, also after a panic.
//! Only SIGKILL prevents that; then the shell restores it, or `stty sane` does.
//!
//! The terminal is only changed while the process group of `runcast` is in its foreground: a
//! background job would take it from the job that uses it.

use std::fs::File;
use std::io::{self, Stdin, stderr, stdin, stdout};
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use runcast_common::config::Env;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, Winsize, isatty, tcgetattr, tcgetpgrp, tcgetwinsize,
    tcsetattr,
};

/// Size without a terminal. Programs cut and wrap what they write to the width, and the log lacks
/// what is cut off: the customary 80 columns are too few.
const DEFAULT_COLUMNS: u16 = 120;
const DEFAULT_ROWS: u16 = 40;

/// The size of the command's terminal: that of the terminal of `runcast`, else COLUMNS and LINES,
/// else a default.
pub(crate) fn command_size(env: &impl Env) -> Winsize {
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

/// The size of the first own stream that is a terminal and knows its size.
pub(crate) fn own_size() -> Option<Winsize> {
    let sizes = [
        tcgetwinsize(stdin()),
        tcgetwinsize(stdout()),
        tcgetwinsize(stderr()),
    ];
    let sizes = sizes.into_iter().flatten();
    sizes
        .into_iter()
        .find(|size| size.ws_col > 0 && size.ws_row > 0)
}

/// The modes of the own terminal, as the user may have set them with `stty`. None in the
/// background, where another job has set them.
pub(crate) fn own_modes() -> Option<Termios> {
    let modes = tcgetattr(stdin()).ok();
    modes.filter(|_| in_foreground(stdin()))
}

/// Whether the own stdout is a terminal, which the command's terminal then writes for.
pub(crate) fn stdout_is_tty() -> bool {
    isatty(stdout())
}

/// Whether this process has a controlling terminal.
pub(crate) fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether the own stdin is a terminal in whose background this process is, so that it must not
/// read it.
pub(crate) fn in_background() -> bool {
    isatty(stdin()) && !in_foreground(stdin())
}

fn in_foreground(terminal: impl AsFd) -> bool {
    let group = rustix::process::getpgrp();
    tcgetpgrp(terminal).is_ok_and(|foreground| foreground == group)
}

/// The raw mode of the own stdin, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct RawMode {
    terminal: Stdin,
    previous: Termios,
    raw: Termios,
}

impl RawMode {
    /// Enters raw mode, if the own stdin is a terminal in whose foreground this process is.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let terminal = stdin();
        if !isatty(&terminal) || !in_foreground(&terminal) {
            return Ok(None);
        }
        let previous = tcgetattr(&terminal)?;
        let mut raw = previous.clone();
        raw.make_raw();
        if !stdout_is_tty() {
            // The output of other programs on the terminal (`| less`) must look as usual.
            raw.output_modes |= previous.output_modes & OutputModes::OPOST;
        }
        let mode = Self {
            terminal,
            previous,
            raw,
        };
        mode.reapply();
        Ok(Some(mode))
    }

    /// Enters raw mode again, after another program has changed it.
    pub(crate) fn reapply(&self) {
        self.set(&self.raw);
    }

    fn set(&self, mode: &Termios) {
        if !in_foreground(&self.terminal) {
            return;
        }
        // If this process is moved to the background right now, it must not be stopped for this
        // call.
        let sigttou = SigSet::from(Signal::SIGTTOU);
        let block_result = sigttou.thread_block();
        // Without draining: a terminal that is paused by Ctrl-S must not block this call.
        if let Err(error) = tcsetattr(&self.terminal, OptionalActions::Now, mode) {
            tracing::warn!(%error, "the mode of the terminal cannot be set");
        }
        if block_result.is_ok()
            && let Err(error) = sigttou.thread_unblock()
        {
            tracing::warn!(%error, "SIGTTOU stays blocked");
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.set(&self.previous);
    }
}
