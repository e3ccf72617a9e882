//! The end of `runcast`, which is that of the command.
//!
//! If a signal killed the command, the same signal ends `runcast`: a shell that sees SIGINT ends
//! its script too, `make` names the signal, and others read it from the status. Process 1 of a
//! container cannot be ended in this way; it exits with 128 and the number of the signal.

use nix::sys::prctl::set_dumpable;

use super::child::CommandExit;
use super::startup::reset_signal;

/// Added to the number of the signal that killed the command, as in shells.
const EXIT_SIGNAL_BASE: i32 = 128;

/// Ends this process by the signal that ended the command. Returns the exit code otherwise.
pub fn end_like(exit: CommandExit) -> u8 {
    match exit {
        CommandExit::Code(code) => code,
        CommandExit::Signal(number) => {
            end_by(number);
            u8::try_from(EXIT_SIGNAL_BASE + number).unwrap_or(u8::MAX)
        }
    }
}

#[expect(unsafe_code, reason = "nix and rustix send only signals with a name")]
fn end_by(number: i32) {
    // The command may have dumped its memory; that of this process would only mislead.
    if let Err(error) = set_dumpable(false) {
        return tracing::debug!(%error, "the signal of the command is not repeated");
    }
    reset_signal(number);
    // SAFETY: the set is initialized before it is used, and the calls change only this thread's
    // mask.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, number);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(number);
    }
}
