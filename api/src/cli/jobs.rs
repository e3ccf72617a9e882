//! `runcastd jobs`: the state of background jobs, and what to do about dead ones, for the operator.

use std::io::Write;

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Subcommand;

use super::escape::escaped_start;
use super::output::time;
use runcast_store::Store;
use runcast_store::audit::Actor;
use runcast_store::job_status::JobKind;

/// Dead jobs in the table; the API has pages.
const MAX_DEAD_JOBS: u16 = 200;

/// Longest error in a table.
const MAX_ERROR_CHARS: usize = 120;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Jobs {
    /// List counts by kind and state, last and next runs, leases, and dead jobs (the default)
    List,
    /// Retry a job now, with all its attempts
    Retry {
        /// Its number, from `list`
        id: i64,
    },
    /// Delete a job from the queue
    Drop {
        /// Its number, from `list`
        id: i64,
        /// Confirm
        #[arg(long)]
        yes: bool,
    },
}

impl Jobs {
    /// Runs the command and writes its result to `out`.
    pub async fn run(self, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
        match self {
            Self::List => list(store, out).await,
            Self::Retry { id } => {
                if !store.retry_job(&Actor::operator(), id).await? {
                    bail!("there is no job {id}, or it is running");
                }
                Ok(writeln!(out, "job {id} is due now")?)
            }
            Self::Drop { id, yes: false } => {
                bail!("this deletes job {id}: add --yes to confirm")
            }
            Self::Drop { id, yes: true } => {
                if !store.drop_job(&Actor::operator(), id).await? {
                    bail!("there is no job {id}, or it is running");
                }
                Ok(writeln!(out, "job {id} is deleted")?)
            }
        }
    }
}

async fn list(store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "{:<12} {:>8} {:>8} {:>8} {:>8} {:>9}  {:<20}  {:<20}  LAST ERROR",
        "KIND", "WAITING", "RUNNING", "RETRYING", "DEAD", "DUE FOR", "LAST RUN", "NEXT RUN"
    )?;
    for kind in store.job_kinds().await? {
        writeln!(
            out,
            "{:<12} {:>8} {:>8} {:>8} {:>8} {:>9}  {:<20}  {:<20}  {}",
            kind.kind,
            kind.waiting,
            kind.running,
            kind.retrying,
            kind.dead,
            age(kind.due_since),
            time_or_dash(kind.last_run_at),
            time_or_dash(kind.next_run_at),
            error(&kind),
        )?;
    }
    writeln!(
        out,
        "\n{:<12} {:<36} {:>8}  UNTIL",
        "LEASE", "HOLDER", "TOKEN"
    )?;
    for lease in store.lease_rows().await? {
        let until = if lease.held {
            time(lease.expires_at)
        } else {
            "not held".to_owned()
        };
        writeln!(
            out,
            "{:<12} {} {:>8}  {until}",
            lease.name, lease.holder, lease.token
        )?;
    }
    let dead = store.dead_jobs(0, MAX_DEAD_JOBS).await?;
    if dead.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<12} {:<12} {:>8}  {:<20}  ERROR",
        "DEAD JOB", "KIND", "TRIED", "SINCE"
    )?;
    for job in dead {
        writeln!(
            out,
            "{:<12} {:<12} {:>8}  {:<20}  {}",
            job.id,
            job.kind,
            job.attempts,
            time(job.updated_at),
            escaped_start(&job.last_error.unwrap_or_default(), MAX_ERROR_CHARS),
        )?;
    }
    Ok(())
}

/// The last error of a kind; it may quote what came from outside.
fn error(kind: &JobKind) -> String {
    let error = kind.last_error.as_ref().or(kind.last_run_error.as_ref());
    escaped_start(error.map_or("", String::as_str), MAX_ERROR_CHARS)
}

fn time_or_dash(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "-".to_owned(), time)
}

fn age(since: Option<DateTime<Utc>>) -> String {
    let age = since.and_then(|since| (Utc::now() - since).to_std().ok());
    age.map_or_else(|| "-".to_owned(), |age| format!("{} s", age.as_secs()))
}
