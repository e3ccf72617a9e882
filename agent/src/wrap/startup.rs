//! What `runcast` was started with, so that the command gets the same: closed standard streams, the
//! signal mask, ignored signals, the signal at the death of its parent, and descriptors besides the
//! standard streams. Everything else a process inherits by itself.
//!
//! Rust's runtime replaces closed standard streams by `/dev/null` and ignores SIGPIPE before `main`
//! begins. So [`record_streams_and_signals`] runs earlier: the loader calls it.
//!
//! `runcast` closes its own copies of the descriptors once the command has them. Otherwise a pipe
//! that the command closes would stay open.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use rustix::process::{parent_process_death_signal, set_parent_process_death_signal};

use super::signals::forwarded_signals;

/// Whether stdin, stdout and stderr were closed.
static WAS_CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// The signals that this program itself changes: SIGPIPE by Rust's runtime, SIGCHLD to notice the
/// end of the command.
const CHANGED_SIGNALS: [Signal; 2] = [Signal::SIGPIPE, Signal::SIGCHLD];

/// Whether these signals were ignored.
static WERE_IGNORED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

#[expect(unsafe_code, reason = "nothing safe runs before Rust's runtime")]
// SAFETY: the section holds pointers to functions, which the loader calls once.
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_RUNTIME: extern "C" fn() = record_streams_and_signals;

#[expect(unsafe_code, reason = "the standard library cannot ask for either")]
extern "C" fn record_streams_and_signals() {
    for (descriptor, was_closed) in (0..).zip(&WAS_CLOSED) {
        // SAFETY: the call only reads flags, also of a number that is no descriptor.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
        was_closed.store(flags == -1, Ordering::Relaxed);
    }
    for (signal, was_ignored) in CHANGED_SIGNALS.iter().zip(&WERE_IGNORED) {
        // SAFETY: `sigaction` is a plain structure of integers, for which zeros are valid; the call
        // fills it and changes nothing.
        let handler = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal as i32, std::ptr::null(), &raw mut action);
            action.sa_sigaction
        };
        was_ignored.store(handler == libc::SIG_IGN, Ordering::Relaxed);
    }
}

/// What this process was started with.
#[derive(Debug)]
pub struct Startup {
    mask: SigSet,
    at_parents_death: Option<rustix::process::Signal>,
    descriptors: Vec<OwnedFd>,
}

impl Startup {
    /// Records it, and blocks the signals that are forwarded to the command. Call it at the start
    /// of `main`, while the process has one thread and has opened nothing.
    pub fn record() -> io::Result<Self> {
        let mask = SigSet::thread_get_mask()?;
        forwarded_signals().thread_block()?;
        Ok(Self {
            mask,
            at_parents_death: parent_process_death_signal()?,
            descriptors: inherited_descriptors(),
        })
    }

    /// Gives a command the signals that this process was started with: mask, ignored ones, and the
    /// one at the death of the parent.
    #[expect(unsafe_code, reason = "the standard library sets neither")]
    pub(crate) fn hand_on(&self, command: &mut Command) {
        let mask = self.mask;
        let ignored = CHANGED_SIGNALS.iter().zip(&WERE_IGNORED);
        let ignored: Vec<Signal> = ignored
            .filter(|(_, was_ignored)| was_ignored.load(Ordering::Relaxed))
            .map(|(signal, _)| *signal)
            .collect();
        let at_parents_death = self.at_parents_death;
        let restore = move || {
            for one in &ignored {
                // SAFETY: no handler is installed.
                unsafe { signal(*one, SigHandler::SigIgn) }?;
            }
            if at_parents_death.is_some() {
                set_parent_process_death_signal(at_parents_death)?;
            }
            Ok(mask.thread_set_mask()?)
        };
        // SAFETY: all these calls may be made between fork and exec.
        unsafe { command.pre_exec(restore) };
    }

    /// Closes the descriptors that the command has by now.
    pub(crate) fn close_descriptors(&mut self) {
        self.descriptors.clear();
    }
}

/// Whether a standard stream (0, 1 or 2) was closed.
pub(crate) fn was_closed(stream: usize) -> bool {
    WAS_CLOSED
        .get(stream)
        .is_some_and(|was_closed| was_closed.load(Ordering::Relaxed))
}

/// Gives a signal its default effect on this process.
#[expect(
    unsafe_code,
    reason = "a changed effect of a signal may break other code"
)]
pub(crate) fn reset_signal(number: i32) {
    // SAFETY: no handler is installed, and none is relied on.
    unsafe { libc::signal(number, libc::SIG_DFL) };
}

/// The open descriptors besides the standard streams; none if `/proc` cannot be read.
#[expect(unsafe_code, reason = "nothing in this process owns them")]
fn inherited_descriptors() -> Vec<OwnedFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let numbers = names.filter_map(|name| name.to_str()?.parse::<RawFd>().ok());
    // One of them was that of the directory, which is closed by now.
    let numbers: Vec<RawFd> = numbers.filter(|number| *number > 2).collect();
    let is_open = |number: &RawFd| {
        // SAFETY: the call only reads flags.
        let flags = unsafe { libc::fcntl(*number, libc::F_GETFD) };
        flags != -1
    };
    numbers
        .into_iter()
        .filter(is_open)
        // SAFETY: the number is that of an open descriptor, and this process has opened none yet
        // that it still owns.
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect()
}
