//! `runcast resend DIR`: sends what earlier processes left in a spool folder.
//!
//! Each producer's folder is handled by itself. Its run is joined, or created if it never was. The
//! events are sent as the same producer with a newer epoch, so nothing is stored twice. Once
//! Postgres holds all of them, the folder is deleted. A folder from which a process still publishes
//! is skipped.
//!
//! A run is created with its id in the spool as the idempotency key, and the id that it gets is
//! written down before anything is sent: however often this is interrupted, it remains one run.
//!
//! Time: the given timeout per folder. Events that are not stored by then stay in the folder.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use runcast_common::config::Env;
use runcast_publisher::gateway_client::{ApiError, GatewayClient, Session};
use runcast_publisher::spool::directory;
use runcast_publisher::{Options as PublisherOptions, PublishError, Publisher, StartError};
use uuid::Uuid;

use crate::console::print_message;
use crate::deferred_run::DeferredRun;
use crate::exit_code::{EX_CONFIG, EX_NOINPUT, EX_NOPERM, EX_TEMPFAIL, EX_UNAVAILABLE};

/// What to send, and how long to try.
#[derive(Debug, Clone)]
pub struct ResendOptions {
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
    #[error("{events} events are not stored yet{}", because(.trouble.as_deref()))]
    NotStored {
        events: u64,
        trouble: Option<String>,
    },
}

fn because(trouble: Option<&str>) -> String {
    trouble.map_or_else(String::new, |trouble| format!(": {trouble}"))
}

impl ResendError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::InUse => EX_TEMPFAIL,
            Self::Api(ApiError::NoSuchRun { .. }) => EX_NOINPUT,
            Self::Api(ApiError::Unauthorized { .. }) => EX_NOPERM,
            Self::Api(ApiError::Config(_)) => EX_CONFIG,
            Self::Api(ApiError::Unreachable { .. }) | Self::Publish(_) | Self::NotStored { .. } => {
                EX_UNAVAILABLE
            }
            Self::Api(_) | Self::Start(_) | Self::Folder(_) => 1,
        }
    }
}

/// Sends everything in the folder. Returns the exit code of the last failure, or 0.
pub async fn run(options: &ResendOptions, env: &impl Env) -> u8 {
    let display = options.folder.display();
    let mut folders = match producer_folders(&options.folder) {
        Ok(folders) => folders,
        Err(error) => {
            print_message(format_args!("{display}: {error}"));
            return EX_NOINPUT;
        }
    };
    if folders.is_empty() {
        return 0;
    }
    folders.sort();
    let client = match GatewayClient::from_env(env) {
        Ok(client) => client,
        Err(error) => {
            print_message(format_args!("{error}"));
            return ResendError::from(error).exit_code();
        }
    };
    let mut code = 0;
    for folder in folders {
        match resend(&client, &folder, options).await {
            Ok(result) => print_message(format_args!("{}: {result}", folder.display())),
            Err(error) => {
                print_message(format_args!("{}: {error}", folder.display()));
                code = error.exit_code();
            }
        }
    }
    code
}

fn producer_folders(spool: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(spool)? {
        let path = entry?.path();
        if directory::parse_producer_folder(&path).is_some() && path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

/// Sends one producer's events and deletes its folder. Returns the message for the user.
async fn resend(
    client: &GatewayClient,
    folder: &Path,
    options: &ResendOptions,
) -> Result<String, ResendError> {
    // 1. Find the run, unless a process still publishes from the folder.
    let (run, variation) = directory::parse_producer_folder(folder)
        .ok_or(io::ErrorKind::InvalidInput)
        .map_err(io::Error::from)?;
    if directory::is_in_use(folder)? {
        return Err(ResendError::InUse);
    }
    let session = open_session(client, folder, run).await?;
    // 2. Send everything, and wait until it is stored.
    let target = session.target(variation);
    let publisher_options = PublisherOptions::default().with_spool(&options.folder);
    let publisher = Publisher::resend(&target, run, folder.to_owned(), publisher_options)?;
    if publisher.spool().is_none() {
        return Err(io::Error::other("the spool cannot be opened").into());
    }
    publisher.connected(options.timeout).await?;
    let closed = publisher.close(options.timeout).await?;
    let events = closed.in_redis + closed.spooled + closed.unsent;
    if events > 0 {
        return Err(ResendError::NotStored {
            events,
            trouble: closed.trouble,
        });
    }
    // 3. Delete the folder.
    drop(publisher);
    fs::remove_dir_all(folder)?;
    Ok(format!("all is stored, see {}", session.page))
}

/// Joins the run, or creates it once.
async fn open_session(
    client: &GatewayClient,
    folder: &Path,
    run: Uuid,
) -> Result<Session, ResendError> {
    let Some(mut deferred) = DeferredRun::read(folder)? else {
        return Ok(client.join_run(run).await?);
    };
    if let Some(created) = deferred.created {
        return Ok(client.join_run(created).await?);
    }
    let session = client.create_run(&deferred.run, run).await?;
    deferred.created = Some(session.run);
    deferred.write(folder)?;
    Ok(session)
}
