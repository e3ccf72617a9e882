//! A server process that belongs to this one.
//!
//! It has a process group of its own, so that Ctrl-C at the terminal reaches only us and we stop
//! things in order; and the kernel ends it when we end in whatever way (`setpriv --pdeathsig`).

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

/// How long a server may take until it answers: Postgres may have to recover from a crash.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a server may take to stop after it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How often to look whether it answers yet.
const POLL: Duration = Duration::from_millis(25);

/// A running server.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    process: tokio::process::Child,
    log: std::path::PathBuf,
}

impl Child {
    /// Starts a program, as another user if one is named, with its output in `log`.
    pub(super) fn start(
        name: &'static str,
        user: Option<&str>,
        program: &Path,
        arguments: &[String],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("setpriv");
        if let Some(user) = user {
            command.args([
                &format!("--reuid={user}"),
                &format!("--regid={user}"),
                "--init-groups",
            ]);
        }
        // SIGINT is "stop at once, in an orderly way" for Postgres and Redis alike.
        command
            .args(["--pdeathsig", "INT", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({} by setpriv)", program.display()))?;
        debug!(name, pid = process.id(), "started");
        Ok(Self {
            name,
            process,
            log: log.to_owned(),
        })
    }

    /// Waits until `answers` says so.
    pub(super) async fn wait_until(
        &mut self,
        mut answers: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!(
                    "{} did not start ({status}):\n{}",
                    self.name,
                    self.last_words()
                );
            }
            if answers().await {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!(
                    "{} does not answer within {START_DEADLINE:?}:\n{}",
                    self.name,
                    self.last_words()
                );
            }
            sleep(POLL).await;
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n  ");
        format!("  {last}\n  (the whole log is {})", self.log.display())
    }

    /// Asks it to stop, and makes it stop if it does not.
    pub(super) async fn stop(mut self) {
        let asked = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = asked
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGINT)
        {
            debug!(name = self.name, %error, "it is gone already");
        }
        match timeout(STOP_DEADLINE, self.process.wait()).await {
            Ok(Ok(status)) => debug!(name = self.name, %status, "stopped"),
            Ok(Err(error)) => warn!(name = self.name, %error, "cannot tell whether it stopped"),
            Err(_elapsed) => {
                warn!(
                    name = self.name,
                    "did not stop within {STOP_DEADLINE:?}; ending it"
                );
                if let Err(error) = self.process.kill().await {
                    warn!(name = self.name, %error, "cannot end it");
                }
            }
        }
    }

    async fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.process.wait().await
    }
}

/// Waits until one of them ends by itself, and tells which.
pub(super) async fn first_to_end(children: &mut [Child]) -> &'static str {
    let ends = children.iter_mut().map(|child| {
        Box::pin(async move {
            let name = child.name;
            if let Err(error) = child.end().await {
                warn!(name, %error, "cannot be watched");
            }
            name
        })
    });
    let ends: Vec<_> = ends.collect();
    if ends.is_empty() {
        return std::future::pending().await;
    }
    futures::future::select_all(ends).await.0
}
