//! `runcast resend DIR`: sends what earlier processes left in a spool folder.
//!
//! Each producer's folder is taken by itself: its run is joined, or created where it never was; what
//! is left is sent as the same producer under a newer epoch, so nothing is stored twice; when Postgres
//! holds all of it the folder is deleted. A folder from which a process still publishes is left to it.
//! A run is created under an idempotency key that is its id in the spool, and the id it got is written
//! down before anything is sent: however often this is interrupted, it is one run.
//!
//! Time limit: the given one for each folder; what is not stored by then stays.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use runcast_common::config::Env;
use uuid::Uuid;

use crate::api::{ApiError, Client, Session};
use crate::publisher::{Options as PublisherOptions, PublishError, Publisher, StartError};
use crate::spool::folder::{self, Planned};
use crate::{UNAVAILABLE, say};

/// What to send, and how long to try.
#[derive(Debug, Clone)]
pub struct Options {
    /// The spool folder.
    pub folder: PathBuf,
    /// Longest wait for one producer's events to be stored.
    pub timeout: Duration,
}

/// Why a folder could not be sent.
#[derive(Debug, thiserror::Error)]
enum ResendError {
    #[error("it cannot be read or written: {0}")]
    Folder(#[from] io::Error),
    #[error("a process still publishes from it")]
    InUse,
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("{left} events are not stored yet{}", because(.why.as_deref()))]
    Left { left: u64, why: Option<String> },
}

fn because(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(": {why}"))
}

impl ResendError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::InUse => 75,
            Self::Api(ApiError::NoSuchRun { .. }) => 66,
            Self::Api(ApiError::Unauthorized { .. }) => 77,
            Self::Api(ApiError::Config(_)) => 78,
            Self::Api(ApiError::Unreachable { .. }) | Self::Publish(_) | Self::Left { .. } => {
                UNAVAILABLE
            }
            Self::Api(_) | Self::Start(_) | Self::Folder(_) => 1,
        }
    }
}

/// Sends everything in the folder and gives the exit code: that of the last failure, or 0.
pub async fn run(options: &Options, env: &impl Env) -> u8 {
    let shown = options.folder.display();
    let mut folders = match producers(&options.folder) {
        Ok(folders) => folders,
        Err(error) => {
            say(format_args!("{shown}: {error}"));
            return 66;
        }
    };
    if folders.is_empty() {
        return 0;
    }
    folders.sort();
    let client = match Client::from_env(env) {
        Ok(client) => client,
        Err(error) => {
            say(format_args!("{error}"));
            return ResendError::from(error).exit_code();
        }
    };
    let mut code = 0;
    for folder in folders {
        match resend(&client, &folder, options).await {
            Ok(sent) => say(format_args!("{}: {sent}", folder.display())),
            Err(error) => {
                say(format_args!("{}: {error}", folder.display()));
                code = error.exit_code();
            }
        }
    }
    code
}

fn producers(spool: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(spool)? {
        let path = entry?.path();
        if folder::parse(&path).is_some() && path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

/// Sends one producer's events and deletes its folder; says what was done.
async fn resend(client: &Client, lies: &Path, options: &Options) -> Result<String, ResendError> {
    let (run, variation) = folder::parse(lies)
        .ok_or(io::ErrorKind::InvalidInput)
        .map_err(io::Error::from)?;
    if folder::is_in_use(lies)? {
        return Err(ResendError::InUse);
    }
    let session = session(client, lies, run).await?;
    let target = session.target(variation);
    let chosen = PublisherOptions::default().spooled_in(&options.folder);
    let publisher = Publisher::resend(&target, run, lies.to_owned(), chosen)?;
    if publisher.spool().is_none() {
        return Err(io::Error::other("the spool cannot be opened").into());
    }
    publisher.connected(options.timeout).await?;
    let closed = publisher.close(options.timeout).await?;
    let left = closed.in_redis + closed.spooled + closed.unsent;
    if left > 0 {
        let why = closed.trouble;
        return Err(ResendError::Left { left, why });
    }
    drop(publisher);
    fs::remove_dir_all(lies)?;
    Ok(format!("all is stored, see {}", session.page))
}

/// Joins the run, or creates it once.
async fn session(client: &Client, lies: &Path, run: Uuid) -> Result<Session, ResendError> {
    let Some(mut planned) = Planned::read(lies)? else {
        return Ok(client.join_run(run).await?);
    };
    if let Some(created) = planned.created {
        return Ok(client.join_run(created).await?);
    }
    let session = client.create_run(&planned.run, run).await?;
    planned.created = Some(session.run);
    planned.write(lies)?;
    Ok(session)
}
