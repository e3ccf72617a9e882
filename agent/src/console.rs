//! Messages of the program to the person at the terminal.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OutputModes, tcgetattr};

/// Longest wait for room on stderr. A message is shorter than the room that then is there.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Prints a message on a line of its own on stderr. A message that cannot be written is dropped.
pub fn print_message(message: fmt::Arguments<'_>) {
    let mut stderr = std::io::stderr();
    // A reader that does not read must not delay the caller for long.
    let wait = Timespec::try_from(MAX_WAIT).ok();
    if poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], wait.as_ref())
        .is_ok_and(|ready| ready == 0)
    {
        return;
    }
    // While a command has the terminal in raw mode, a newline alone does not return to column 1.
    let is_raw =
        tcgetattr(&stderr).is_ok_and(|modes| !modes.output_modes.contains(OutputModes::OPOST));
    let end = if is_raw { "\r\n" } else { "\n" };
    // At once, so that it is not torn by what others write.
    drop(stderr.write_all(format!("runcast: {message}{end}").as_bytes()));
}
