//! Variables that say which process they are for: by them systemd passes sockets (`LISTEN_PID`) and
//! its watchdog (`WATCHDOG_PID`) to the process that it starts, and to no other.
//!
//! If that is `runcast`, they are meant for the command, whose process id is unknown until it is
//! started. So the command is then started by `runcast exec`, which knows its own id, corrects the
//! variables and becomes the command.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{self, Command};

use super::startup::Startup;

const PID_VARIABLES: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];

/// The same process by another number, which would contradict the corrected variables.
const OTHER_VARIABLES: [&str; 2] = ["LISTEN_PIDFDID", "WATCHDOG_PIDFDID"];

/// The command, started by `runcast exec` if a variable says that it is for this process.
pub(super) fn corrected(command: &[OsString]) -> Vec<OsString> {
    let own = process::id().to_string();
    let mut command = command.to_vec();
    if named(&own).next().is_some() {
        let helper = ["/proc/self/exe", "exec", &own, "--"];
        command.splice(0..0, helper.map(OsString::from));
    }
    command
}

/// Becomes the command, with the variables that are for this process id corrected. Returns why not.
pub fn exec_corrected(pid: &str, command: &[OsString]) -> io::Error {
    let startup = match Startup::record() {
        Ok(startup) => startup,
        Err(error) => return error,
    };
    let Some((program, arguments)) = command.split_first() else {
        return io::ErrorKind::NotFound.into();
    };
    let mut command = Command::new(program);
    command.args(arguments);
    for name in named(pid) {
        command.env(name, process::id().to_string());
    }
    for name in OTHER_VARIABLES {
        command.env_remove(name);
    }
    startup.hand_on(&mut command);
    command.exec()
}

fn named(pid: &str) -> impl Iterator<Item = &'static str> {
    let is_for = move |name: &&str| env::var_os(name).is_some_and(|value| value == pid);
    PID_VARIABLES.into_iter().filter(is_for)
}
