//! `runcastd jobs`: how background work stands, and what can be done about a job that is dead, for the operator.

use std::io::Write;

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Subcommand;

use runcast_store::Store;
use runcast_store::job_status::JobKind;

/// Dead jobs that are listed at most; the API has pages.
const MOST_DEAD: u16 = 200;

/// Longest error in a table.
const ERROR_WIDTH: usize = 120;

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum Jobs {
    /// Counts by kind and state, when each ran last and runs next, leases, and dead jobs (the default)
    List,
    /// Try a job again now, with all its attempts
    Retry {
        /// Its number, from `list`
        id: i64,
    },
    /// Take a job off the queue
    Drop {
        /// Its number, from `list`
        id: i64,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
}

impl Jobs {
    /// Does it, and writes what there is to tell to `out`.
    ///
    /// # Errors
    /// In words for a person.
    pub async fn run(self, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
        match self {
            Self::List => list(store, out).await,
            Self::Retry { id } => {
                if !store.retry_job(id).await? {
                    bail!("there is no job {id}, or it runs at this moment");
                }
                Ok(writeln!(out, "job {id} is due now")?)
            }
            Self::Drop { id, yes: false } => bail!("this deletes job {id} for good: add --yes"),
            Self::Drop { id, yes: true } => {
                if !store.drop_job(id).await? {
                    bail!("there is no job {id}, or it runs at this moment");
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
            time(kind.last_run_at),
            time(kind.next_run_at),
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
            time(Some(lease.expires_at))
        } else {
            "not held".to_owned()
        };
        writeln!(
            out,
            "{:<12} {} {:>8}  {until}",
            lease.name, lease.holder, lease.token
        )?;
    }
    let dead = store.dead_jobs(0, MOST_DEAD).await?;
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
            time(Some(job.updated_at)),
            shown(&job.last_error.unwrap_or_default()),
        )?;
    }
    Ok(())
}

fn error(kind: &JobKind) -> String {
    let error = kind.last_error.as_ref().or(kind.last_run_error.as_ref());
    shown(error.map_or("", String::as_str))
}

/// An error may quote what came from outside.
fn shown(error: &str) -> String {
    error.escape_debug().take(ERROR_WIDTH).collect()
}

fn time(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

fn age(since: Option<DateTime<Utc>>) -> String {
    let age = since.and_then(|since| (Utc::now() - since).to_std().ok());
    age.map_or_else(|| "-".to_owned(), |age| format!("{} s", age.as_secs()))
}
