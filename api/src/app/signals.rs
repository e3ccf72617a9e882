//! SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Exit code of a process that a second signal ends: 128 + SIGINT, as shells have it.
const INTERRUPTED_EXIT_CODE: i32 = 130;

/// A token that the first signal cancels. A second signal ends the process at once.
pub fn stop_token() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // This task lives as long as the process and cannot fail.
    drop(tokio::spawn(async move {
        for round in 0.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if round > 0 {
                info!("{name} again: exiting at once");
                std::process::exit(INTERRUPTED_EXIT_CODE);
            }
            info!("{name}: stopping; a second signal exits at once");
            cancelled.cancel();
        }
    }));
    Ok(stop)
}
