//! Signals for the command (Linux).
//!
//! The signals are blocked in every thread and read from a `signalfd`, instead of being caught by
//! handlers. So the command inherits the dispositions that `runcast` was started with (`nohup`
//! keeps working), and each signal says where it came from. Signals of the kernel (Ctrl-C, Ctrl-\,
//! Ctrl-Z, a resized or closed terminal) go to the whole foreground process group, so the command
//! has them already; a signal from a process is for `runcast` alone and is forwarded, and so is the
//! end of a timer (`perl -e 'alarm 5; exec @ARGV'`). SIGXFSZ and SIGXCPU of the kernel are ignored:
//! a limit that `runcast` itself reaches must not end the command.
//!
//! In a terminal of its own (`--tty`) the command is in another session and gets none of these, so
//! everything is forwarded.
//!
//! If a process signals the whole group (`kill -- -PGID`, a shell's `fg`), that cannot be
//! distinguished from a signal to `runcast` alone: the command then gets the signal twice.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use tokio::sync::mpsc;

/// Signals that are forwarded, besides those without a name (SIGRTMIN to SIGRTMAX). All others
/// report a fault of the process that they are sent to, or cannot be caught.
const FORWARDED_SIGNALS: [Signal; 18] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGURG,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
];

/// Signals that wait to be forwarded; the kernel keeps one more of each.
const MAX_WAITING_SIGNALS: usize = 16;

/// All signals that are forwarded.
#[expect(unsafe_code, reason = "nix knows no signals without a name")]
pub(super) fn forwarded_signals() -> SigSet {
    let named: SigSet = FORWARDED_SIGNALS.into_iter().collect();
    let mut all: libc::sigset_t = *named.as_ref();
    // SAFETY: the set is initialized, and the calls add valid signals to it.
    unsafe {
        for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            libc::sigaddset(&raw mut all, number);
        }
        SigSet::from_sigset_t_unchecked(all)
    }
}

/// A received signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceivedSignal {
    pub(crate) number: i32,
    pub(crate) origin: Origin,
}

/// Where a signal came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// For this process alone: from another process, or from a timer.
    Process,
    /// From the terminal, for the whole process group.
    Terminal,
    /// From the kernel, because of what this process itself does.
    Own,
}

impl ReceivedSignal {
    /// The signal, if it has a name.
    pub(crate) fn signal(self) -> Option<Signal> {
        Signal::try_from(self.number).ok()
    }
}

impl Origin {
    /// Codes above zero come from the kernel; zero and below from `kill` and similar calls.
    fn of(number: i32, code: i32) -> Self {
        match Signal::try_from(number) {
            _ if code <= 0 => Self::Process,
            Ok(Signal::SIGXCPU | Signal::SIGXFSZ | Signal::SIGIO | Signal::SIGURG) => Self::Own,
            Ok(Signal::SIGALRM | Signal::SIGVTALRM | Signal::SIGPROF) => Self::Process,
            _ => Self::Terminal,
        }
    }
}

/// The received signals, read by a thread that lives as long as the process.
#[derive(Debug)]
pub(crate) struct Signals {
    received: mpsc::Receiver<ReceivedSignal>,
}

impl Signals {
    /// Starts the reading thread. The signals must be blocked in all threads.
    pub(crate) fn listen() -> io::Result<Self> {
        let descriptor = SignalFd::with_flags(&forwarded_signals(), SfdFlags::SFD_CLOEXEC)?;
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
        let Ok(number) = i32::try_from(info.ssi_signo) else {
            continue;
        };
        let origin = Origin::of(number, info.ssi_code);
        if sender
            .blocking_send(ReceivedSignal { number, origin })
            .is_err()
        {
            return;
        }
    }
}

/// Sends a signal to a process that may have just ended.
pub(crate) fn send(process: Pid, signal: Signal) {
    send_number(process, signal as i32);
}

/// Sends a signal that may have no name.
#[expect(unsafe_code, reason = "nix and rustix send only signals with a name")]
pub(crate) fn send_number(process: Pid, number: i32) {
    // SAFETY: the call takes two numbers.
    let sent = Errno::result(unsafe { libc::kill(process.as_raw(), number) });
    match sent {
        // It has just ended.
        Ok(_) | Err(Errno::ESRCH) => {}
        Err(error) => {
            tracing::warn!(%process, signal = number, %error, "a signal could not be forwarded");
        }
    }
}
