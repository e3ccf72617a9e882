//! Signals for the wrapped command (Linux).
//!
//! The signals are blocked in every thread and read from a `signalfd`, not caught by handlers: so
//! the command inherits the dispositions that `runcast` was started with (`nohup` goes on
//! working), and each signal tells where it comes from. What the kernel sends (Ctrl-C, Ctrl-\,
//! Ctrl-Z, a resized or closed terminal) goes to the whole foreground process group, so the command
//! has it already; what a process sends is for `runcast` alone and is passed on.
//!
//! Under a terminal of its own (`--tty`) the command is in another session and gets nothing of that: then
//! everything is passed on.
//!
//! A process that signals the whole group (`kill -- -PGID`, a shell's `fg`) cannot be told from one
//! that signals `runcast` alone: the command then gets the signal twice.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use tokio::sync::mpsc;

/// What is passed on; anything else keeps its effect on `runcast` itself.
const PASSED_ON: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGTSTP,
];

/// Signals that may wait to be passed on; the kernel keeps one more of each.
const WAITING: usize = 16;

/// Proof that the signals are blocked.
#[derive(Debug)]
pub struct Blocked(SigSet);

/// Blocks the signals that are passed on. To be called while the process has one thread; threads
/// that are started later inherit it.
///
/// # Errors
/// If the kernel refuses.
pub fn block() -> io::Result<Blocked> {
    let set: SigSet = PASSED_ON.into_iter().collect();
    set.thread_block()?;
    Ok(Blocked(set))
}

/// A signal that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) signal: Signal,
    /// The kernel has sent it to the whole process group, so that the command has it too.
    pub(crate) to_group: bool,
}

/// The signals as they come, read by a thread that lives as long as the process.
#[derive(Debug)]
pub(crate) struct Signals {
    arrived: mpsc::Receiver<Arrived>,
}

impl Blocked {
    /// Calls `start`, which starts the command, with the signals let through: a process inherits
    /// what the thread that starts it has blocked. A signal that comes in this moment has its usual
    /// effect on us.
    pub(crate) fn let_through<T>(&self, start: impl FnOnce() -> T) -> io::Result<T> {
        self.0.thread_unblock()?;
        let started = start();
        self.0.thread_block()?;
        Ok(started)
    }
}

impl Signals {
    /// Starts to listen.
    pub(crate) fn listen(blocked: &Blocked) -> io::Result<Self> {
        let descriptor = SignalFd::with_flags(&blocked.0, SfdFlags::SFD_CLOEXEC)?;
        let (sender, arrived) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || read(&descriptor, &sender))?;
        Ok(Self { arrived })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> io::Result<Arrived> {
        let gone = || io::Error::other("signals cannot be read any more");
        self.arrived.recv().await.ok_or_else(gone)
    }
}

fn read(descriptor: &SignalFd, sender: &mpsc::Sender<Arrived>) {
    loop {
        let info = match descriptor.read_signal() {
            Ok(Some(info)) => info,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(error) => {
                tracing::error!(%error, "signals cannot be read any more");
                return;
            }
        };
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        let Ok(signal) = Signal::try_from(number) else {
            continue;
        };
        // Positive codes are the kernel's; zero and below come from kill and its like.
        let to_group = info.ssi_code > 0;
        let arrived = Arrived { signal, to_group };
        if sender.blocking_send(arrived).is_err() {
            return;
        }
    }
}

/// Sends a signal to a process that may just have ended.
pub(crate) fn send(process: Pid, signal: Signal) {
    match kill(process, signal) {
        // It has just ended.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%process, %signal, %error, "a signal could not be passed on"),
    }
}
