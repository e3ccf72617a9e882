//! Processes that the command left behind: what they print after `runcast` has ended.
//!
//! They still write to the pipes, or to the terminal, that the command had. If these were closed,
//! SIGPIPE or a hangup would end the processes, which would go on without `runcast`. So each stream
//! that is still open is handed to a small process, `runcast pass-on`, which copies it to the own
//! stream of `runcast` until one of the two is closed. That keeps the own stream open as long as
//! the processes would have kept it open themselves.
//!
//! Data: one buffer in each of these processes. Time: none; they end with the streams, and the
//! signals that `runcast` forwards do not end them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::io::Errno;

use super::passthrough::{is_reader_gone, write_all};
use super::signals::forwarded_signals;

/// What is said when publishing ends before the output does.
pub(super) const NO_LONGER_PUBLISHED: &str = "processes that the command left behind still have its output open: what they print from \
     now on is passed on, but not published";

/// Bytes per read: what a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;

/// A stream that processes still have open.
#[derive(Debug)]
pub(super) struct OpenStream {
    pub(super) from: OwnedFd,
    pub(super) own: Arc<OwnedFd>,
}

impl OpenStream {
    /// Starts the process that passes it on. It holds `with_it` open as long as the stream.
    pub(super) fn pass_on(self, with_it: Option<OwnedFd>) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.from, false)?;
        let own = self.own.try_clone()?;
        // It is not waited for: it outlives this process.
        Command::new("/proc/self/exe")
            .arg0("runcast")
            .arg("pass-on")
            .env_clear()
            .current_dir("/")
            .stdin(self.from)
            .stdout(own)
            .stderr(with_it.map_or_else(Stdio::null, Stdio::from))
            .spawn()?;
        Ok(())
    }
}

/// Copies stdin to stdout until one of them is closed.
pub fn pass_on() -> io::Result<()> {
    forwarded_signals().thread_block()?;
    let (from, to) = (io::stdin(), io::stdout());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = match rustix::io::read(&from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            // The last process that had the terminal open has ended.
            Err(Errno::IO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match write_all(&to, &buffer[..length]) {
            Err(error) if is_reader_gone(&error) => return Ok(()),
            written => written?,
        }
    }
}
