//! Runs any command and publishes what it writes, without getting in its way.
//!
//! - `start`: joins or creates the run, or spools for one;
//! - `child`: starts the command, and reads how it ended;
//! - `terminal`, `leader`, `own_terminal`, `keyboard`: the terminal that it can have, its session, what shows it,
//!   what is typed;
//! - `watch`: stays with it until it has ended and what it wrote is read;
//! - `reaper`, `job`: collects what has ended, and reaches what it has started;
//! - `signals`: what is sent to us is passed on to it;
//! - `orders`: what is wanted of the run is done to it;
//! - `pump`, `order`: what it writes is read in the order in which it is written;
//! - `lane`, `through`, `lines`, `feed`: each of its streams goes to our own one unchanged, and, redacted
//!   and cut into lines, into the publisher;
//! - `recognise`: what these lines say beyond their text.
//!
//! Whatever is published passes through [`redact`](crate::redact) first: the streams in `lane`, the
//! rest in `shown`.
//!
//! The first event is `status` running, the last one the final `status` with the seal. Time limits:
//! [`REACH`] for the start, [`PIPE_GRACE`](watch::PIPE_GRACE) for pipes that descendants hold open after the
//! command's end, and the drain timeout for storing what is left; a signal in these last two ends them.

mod cap;
mod child;
mod descriptor;
mod feed;
mod job;
mod keyboard;
mod lane;
mod leader;
mod lines;
mod order;
mod orders;
mod outlet;
mod own_terminal;
mod pump;
mod reaper;
mod recognise;
mod reporter;
mod shown;
mod signals;
mod start;
mod terminal;
mod through;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::config::Env;
use runcast_common::protocol::event::StatusChange;
use uuid::Uuid;

use self::feed::Feeds;
pub use self::leader::lead;
use self::orders::Orders;
pub use self::recognise::markers;
use self::shown::Shown;
use self::signals::Signals;
pub use self::signals::{Blocked, block};
use self::watch::Watch;
use crate::publisher::{Closed, Publisher};
use crate::redact::Wanted;
use crate::{UNAVAILABLE, say};

/// Longest wait for the gateway and Redis together, before the command runs without being
/// published: what a job may start later for the sake of being watched.
const REACH: Duration = Duration::from_secs(10);

/// What to run, and how to publish it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run to join; a new one if absent.
    pub run: Option<Uuid>,
    /// Name of a new run; made from the command if absent.
    pub name: Option<String>,
    /// Labels of a new run.
    pub labels: BTreeMap<String, String>,
    /// Which variation this process is.
    pub variation: u16,
    /// How many variations a new run has.
    pub variations: u16,
    /// Refuse to run the command if it cannot be published.
    pub require: bool,
    /// Folder of the spool; only memory if absent.
    pub spool: Option<PathBuf>,
    /// Longest wait for everything to be stored, after the command's end.
    pub drain_timeout: Duration,
    /// How long a cancelled command may take to end before it is killed.
    pub cancel_grace: Duration,
    /// Run the command under a pseudo-terminal.
    pub tty: bool,
    /// Which secrets are taken out of what is published.
    pub redact: Wanted,
    /// Which markers are looked for in its output.
    pub markers: markers::Wanted,
    /// How many bytes of its output are published; 0 for all.
    pub max_output: u64,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Runs the command and gives the exit code.
///
/// # Errors
/// If the kernel refuses to tell of signals or of the command's end.
pub async fn run(options: &Options, env: &impl Env, blocked: &Blocked) -> io::Result<u8> {
    let mut signals = Signals::listen(blocked)?;
    let shown = Shown::new(options, std::env::vars_os(), env);
    let publisher = match start::start(options, &shown, env).await {
        Ok(publisher) => {
            shown.tell_ignored();
            Some(publisher)
        }
        Err(error) if options.require => {
            say(format_args!(
                "{error:#}; the command was not run (--require)"
            ));
            return Ok(UNAVAILABLE);
        }
        Err(error) => {
            say(format_args!(
                "nothing is published, the command runs all the same: {error:#}"
            ));
            None
        }
    };
    let watch = Watch::before_start()?;
    let start = || child::spawn(&options.command, options.tty, env);
    let (change, code) = match blocked.let_through(start)? {
        Ok(started) => {
            let orders = Orders::to(publisher.as_ref(), options.cancel_grace);
            let feeds = Feeds::new(
                publisher.clone(),
                options.markers.resolve(env),
                options.max_output,
                &child::program(&shown.command),
            );
            let publisher = publisher.clone();
            watch
                .over(started, &shown, publisher, feeds, &mut signals, orders)
                .await?
        }
        Err(error) => {
            let (change, code) = child::not_started(&shown.command, &error);
            say(format_args!(
                "{}",
                change.message.as_deref().unwrap_or_default()
            ));
            (change, code)
        }
    };
    if let Some(publisher) = publisher {
        finish(&publisher, change, options.drain_timeout, &mut signals).await?;
    }
    Ok(code)
}

/// Publishes the last status, waits until all is stored, and says so if it is not.
async fn finish(
    publisher: &Publisher,
    change: StatusChange,
    within: Duration,
    signals: &mut Signals,
) -> io::Result<()> {
    let closed = tokio::select! {
        closed = publisher.finish(change, within) => closed,
        () = told_to_end(signals) => publisher.close(Duration::ZERO).await,
    };
    match closed {
        Ok(closed) => tell(&closed, publisher),
        Err(error) => say(format_args!("not everything is published: {error}")),
    }
    Ok(())
}

fn tell(closed: &Closed, publisher: &Publisher) {
    let Closed {
        in_redis,
        spooled,
        unsent,
        ..
    } = closed;
    let why = closed.trouble.as_deref().unwrap_or("time ran out");
    if *unsent > 0 {
        say(format_args!(
            "{unsent} events are lost, they did not reach Redis: {why}"
        ));
    }
    if let Some(lies) = publisher.spool()
        && *spooled > 0
    {
        let spool = lies.parent().unwrap_or(lies);
        say(format_args!(
            "{spooled} events are not sent yet: {why}; they lie in {}, send them by `runcast resend {}`",
            lies.display(),
            spool.display()
        ));
    }
    if *in_redis > 0 {
        say(format_args!(
            "{in_redis} events are in Redis but not yet stored in Postgres"
        ));
    }
}

/// Waits for a signal that asks to end, once the command has ended.
pub(crate) async fn told_to_end(signals: &mut Signals) {
    loop {
        match signals.next().await.map(|arrived| arrived.signal) {
            Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT) => return,
            Ok(_) => {}
            // Signals are blocked: without a way to read them there is nothing to wait for.
            Err(error) => {
                tracing::warn!(%error, "signals cannot be read");
                return std::future::pending().await;
            }
        }
    }
}
