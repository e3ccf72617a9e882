//! Signals for the command (Linux).
//!
//! The signals are blocked in every thread and read from a `signalfd`, instead of being caught by
//! handlers. So the command inherits the dispositions that `runcast` was started with (`nohup`
//! keeps working), and each signal says where it came from. Signals of the kernel (Ctrl-C, Ctrl-\,
//! Ctrl-Z, a resized or closed terminal) go to the whole foreground process group, so the command
//! has them already; a signal from a process is for `runcast` alone and is forwarded.
//!
//! In a terminal of its own (`--tty`) the command is in another session and gets none of these, so
//! everything is forwarded.
//!
//! If a process signals the whole group (`kill -- -PGID`, a shell's `fg`), that cannot be
//! distinguished from a signal to `runcast` alone: the command then gets the signal twice.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use tokio::sync::mpsc;

/// Signals that are forwarded; all others keep their effect on `runcast` itself.
const FORWARDED_SIGNALS: [Signal; 9] = [
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

/// Signals that wait to be forwarded; the kernel keeps one more of each.
const MAX_WAITING_SIGNALS: usize = 16;

/// Proof that the signals are blocked.
#[derive(Debug)]
pub struct BlockedSignals(SigSet);

/// Blocks the signals that are forwarded. Call it while the process has one thread; later threads
/// inherit the mask.
pub fn block_signals() -> io::Result<BlockedSignals> {
    let set: SigSet = FORWARDED_SIGNALS.into_iter().collect();
    set.thread_block()?;
    Ok(BlockedSignals(set))
}

/// A received signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceivedSignal {
    pub(crate) signal: Signal,
    /// The kernel sent it to the whole process group, so the command has it too.
    pub(crate) to_group: bool,
}

/// The received signals, read by a thread that lives as long as the process.
#[derive(Debug)]
pub(crate) struct Signals {
    received: mpsc::Receiver<ReceivedSignal>,
}

impl BlockedSignals {
    /// Calls `start`, which starts the command, with the signals unblocked: a process inherits the
    /// mask of the thread that starts it. A signal that arrives at this moment has its usual effect
    /// on `runcast`.
    pub(crate) fn unblocked_during<T>(&self, start: impl FnOnce() -> T) -> io::Result<T> {
        self.0.thread_unblock()?;
        let started = start();
        self.0.thread_block()?;
        Ok(started)
    }
}

impl Signals {
    /// Starts the reading thread.
    pub(crate) fn listen(blocked: &BlockedSignals) -> io::Result<Self> {
        let descriptor = SignalFd::with_flags(&blocked.0, SfdFlags::SFD_CLOEXEC)?;
        let (sender, received) = mpsc::channel(MAX_WAITING_SIGNALS);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || read(&descriptor, &sender))?;
        Ok(Self { received })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> io::Result<ReceivedSignal> {
        let gone = || io::Error::other("signals cannot be read any more");
        self.received.recv().await.ok_or_else(gone)
    }
}

fn read(descriptor: &SignalFd, sender: &mpsc::Sender<ReceivedSignal>) {
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
        // Codes above zero come from the kernel; zero and below from `kill` and similar calls.
        let to_group = info.ssi_code > 0;
        let received = ReceivedSignal { signal, to_group };
        if sender.blocking_send(received).is_err() {
            return;
        }
    }
}

/// Sends a signal to a process that may have just ended.
pub(crate) fn send(process: Pid, signal: Signal) {
    match kill(process, signal) {
        // It has just ended.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%process, %signal, %error, "a signal could not be forwarded"),
    }
}
