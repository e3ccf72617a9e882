//! Messages of the program to the person at the terminal.

use std::fmt;
use std::io::Write as _;

use rustix::termios::{OutputModes, tcgetattr};

/// Prints a message on a line of its own on stderr. A message that cannot be written is dropped.
pub fn print_message(message: fmt::Arguments<'_>) {
    let mut stderr = std::io::stderr();
    // While a command has the terminal in raw mode, a newline alone does not return to column 1.
    let is_raw =
        tcgetattr(&stderr).is_ok_and(|modes| !modes.output_modes.contains(OutputModes::OPOST));
    let end = if is_raw { "\r\n" } else { "\n" };
    drop(write!(stderr, "runcast: {message}{end}"));
}
