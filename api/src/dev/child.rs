//! A server that runs as a child process.
//!
//! It has its own process group, so that Ctrl-C at the terminal reaches `runcastd` alone, which
//! then stops everything in order. The kernel stops it when `runcastd` ends in any way (`setpriv
//! --pdeathsig`).

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

/// Longest time until a server answers: Postgres may have to recover from a crash.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Longest time in which a server may stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Lines of a log that an error quotes.
const LOG_END_LINES: usize = 10;

/// Pause between two pings while a server starts.
const PING_INTERVAL: Duration = Duration::from_millis(25);

/// A running server.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    process: tokio::process::Child,
    log: std::path::PathBuf,
}

impl Child {
    /// Starts a program, as another user if one is given, with its output in the file `log`.
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
        // For Postgres and Redis alike SIGINT is "stop at once, in an orderly way".
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

    /// Waits until `answers` returns true.
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
                    self.end_of_log()
                );
            }
            if answers().await {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!(
                    "{} does not answer within {START_DEADLINE:?}:\n{}",
                    self.name,
                    self.end_of_log()
                );
            }
            sleep(PING_INTERVAL).await;
        }
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_END_LINES)..].join("\n  ");
        format!("  {last}\n  (the whole log is {})", self.log.display())
    }

    /// Stops it, and kills it after [`STOP_DEADLINE`].
    pub(super) async fn stop(mut self) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGINT)
        {
            debug!(name = self.name, %error, "has ended already");
        }
        match timeout(STOP_DEADLINE, self.process.wait()).await {
            Ok(Ok(status)) => debug!(name = self.name, %status, "stopped"),
            Ok(Err(error)) => warn!(name = self.name, %error, "cannot wait for its end"),
            Err(_elapsed) => {
                warn!(
                    name = self.name,
                    "did not stop within {STOP_DEADLINE:?}; killing it"
                );
                if let Err(error) = self.process.kill().await {
                    warn!(name = self.name, %error, "cannot kill it");
                }
            }
        }
    }

    async fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.process.wait().await
    }
}

/// Waits until one of them ends by itself, and returns its name.
pub(super) async fn first_to_end(children: &mut [Child]) -> &'static str {
    let ends = children.iter_mut().map(|child| {
        Box::pin(async move {
            let name = child.name;
            if let Err(error) = child.end().await {
                warn!(name, %error, "cannot wait for its end");
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

/// A port of 127.0.0.1 that is free at this moment.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}
