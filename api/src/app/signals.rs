//! SIGTERM, SIGINT and SIGHUP.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Exit code of a process that a second signal ends: 128 + SIGINT, as shells have it.
const INTERRUPTED_EXIT_CODE: i32 = 130;

/// What SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// The terminal is gone, and the process has to stop.
    Stops,
    /// An operator expects that settings are read again. There are none for which that is needed:
    /// a certificate is read again when its files change.
    Continues,
}

/// A token that the first signal cancels. A second signal ends the process at once.
pub fn stop_token(on_hangup: Hangup) -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let is_ignored = is_hangup_ignored();
    let mut hangup = signal(SignalKind::hangup())?;
    // This task lives as long as the process and cannot fail.
    drop(tokio::spawn(async move {
        let mut is_stopping = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => match on_hangup {
                    _ if is_ignored => continue,
                    Hangup::Stops => "SIGHUP",
                    Hangup::Continues => {
                        info!("SIGHUP: going on; certificates are read again when their files change, \
                               other settings with a restart");
                        continue;
                    }
                },
            };
            if std::mem::replace(&mut is_stopping, true) {
                info!("{name} again: exiting at once");
                std::process::exit(INTERRUPTED_EXIT_CODE);
            }
            info!("{name}: stopping; a second signal exits at once");
            cancelled.cancel();
        }
    }));
    Ok(stop)
}

/// Whether the process was started with SIGHUP ignored, as `nohup` does.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is the first signal.
    ignored.is_some_and(|mask| mask & 1 == 1)
}
