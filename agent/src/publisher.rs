//! Publishing for one variation of a run.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use runcast_agent::api::{Client, NewRun};
//! use runcast_agent::publisher::{Options, Publisher};
//! use runcast_common::config::ProcessEnv;
//! use runcast_common::event::{Status, StatusChange};
//!
//! runcast_common::connect::install_tls_provider();
//! let session = Client::from_env(&ProcessEnv)?.create_run(&NewRun::named("nightly"), uuid::Uuid::now_v7()).await?;
//! let publisher = Publisher::start(&session.target(0), Options::default())?;
//! publisher.status(&StatusChange::to(Status::Running)).await?;
//! publisher.output("hello\n").await?;
//! let closed = publisher
//!     .finish(StatusChange::to(Status::Succeeded), Duration::from_secs(30))
//!     .await?;
//! assert_eq!(closed.unsent, 0);
//! # Ok(())
//! # }
//! ```
//!
//! Publishing writes the event's line at once and puts it into a bounded queue; one task sends. An
//! event is kept until Postgres holds it, so a lost Redis costs a resend, not the event. Without a
//! spool what is not in Redis is lost with the process. With one ([`Options::spool`]) it is in a file
//! before it is sent, no later than 50 ms after it was published while the spool has room, and the
//! next process with the same run, variation and folder goes on with it as the same producer.
//!
//! Memory, at most: the queue ([`MAX_BYTES`](crate::queue::MAX_BYTES), 8 MiB); bodies that are in no
//! file ([`Options::backlog_bytes`], 64 MiB, with a spool only while that cannot be written); with a
//! spool bodies that are in a file too ([`HOT_BYTES`](crate::backlog::HOT_BYTES), 8 MiB); an index
//! ([`MAX_ENTRIES`](crate::backlog::MAX_ENTRIES) batches of 32 bytes, 32 MiB); and what is in flight
//! on the connection (8 batches of 256 KiB, twice). When both queue and backlog are full, or the
//! spool is at its cap, events of the kinds in [`Options::drop_oldest`] drop the oldest waiting ones,
//! counted in a `gap` event; for all others the async calls wait and the `try_` forms say
//! [`PublishError::Full`]. What somebody wants of the run comes from [`control`](Publisher::control). Time limits are the caller's: `flush`, `close` and `finish` take one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runcast_common::connect::Redis;
use runcast_common::protocol::event::{self, Kind, Progress as ProgressPayload, StatusChange};
use runcast_common::protocol::keys::Keys;
use runcast_common::protocol::limits::MAX_VARIATIONS;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod control;
mod end;
mod room;
mod start;

pub use self::control::{Command, Commands};
use self::end::Wait;
use crate::launch::Launch;
pub use crate::outcome::{Closed, PublishError, StartError, Stopped};
use crate::payload::{LogLine, Metric, chunks};
use crate::progress::Progress;
use crate::queue::Queue;
use crate::spool::folder::of_producer;
pub use crate::target::{Fsync, Options, SpoolOptions, Target};

/// How long [`Publisher::connected`] goes on after a first failed attempt: a lost answer or a restart
/// of Redis is over by then, and a wrong address has cost a command three seconds.
const HICCUP: Duration = Duration::from_secs(3);

/// Publishes for one variation of a run. Cloning is cheap, and all clones are one producer.
///
/// To be ended by [`close`](Self::close) or [`finish`](Self::finish). When the last clone is dropped
/// without, what it holds is still tried for 5 s in the background.
#[derive(Debug, Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Arc<Queue>,
    progress: watch::Receiver<Progress>,
    /// Ends the sending task at once.
    stop: CancellationToken,
    dropped: Arc<Notify>,
    /// Ends the signs of life.
    ended: CancellationToken,
    producer: Uuid,
    producer_epoch: u64,
    /// None if it is not known where the run will be published.
    commands: Option<control::Source>,
    /// Where its spool lies, if it has one.
    spool: Option<PathBuf>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Without a last status there is nothing that could be refused.
        drop(self.queue.end(None));
        self.dropped.notify_one();
        self.ended.cancel();
    }
}

impl Publisher {
    /// Starts a publisher. It connects in the background and goes on trying;
    /// [`connected`](Self::connected) waits for that. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] if the target makes no sense.
    pub fn start(target: &Target, options: Options) -> Result<Self, StartError> {
        if target.variation >= MAX_VARIATIONS {
            return Err(StartError::Variation(target.variation));
        }
        let redis = Redis::new(&target.redis)?;
        let installation = Keys::new(&target.prefix);
        let keys = installation.run(target.run);
        let folder = options.spool.as_ref();
        let folder = folder.map(|spool| of_producer(&spool.folder, target.run, target.variation));
        Ok(Self::launch(Launch {
            redis: Some(redis),
            keys,
            spooled_as: target.run,
            variation: target.variation,
            folder,
            options,
            pulse: Some(installation),
        }))
    }

    /// Who publishes: the producer's id and the epoch of this process.
    #[must_use]
    pub fn producer(&self) -> (Uuid, u64) {
        (self.shared.producer, self.shared.producer_epoch)
    }

    /// The folder of this producer's spool; none if it has none, or it could not be opened.
    #[must_use]
    pub fn spool(&self) -> Option<&Path> {
        self.shared.spool.as_deref()
    }

    /// Waits until the server has answered a call of the append script.
    ///
    /// # Errors
    /// [`PublishError::Unreachable`] when none was answered in time, or attempts have failed for
    /// [`HICCUP`]. The publisher itself goes on trying.
    pub async fn connected(&self, within: Duration) -> Result<(), PublishError> {
        let mut progress = self.shared.progress.clone();
        let until = Instant::now() + within;
        let known = progress.wait_for(|now| now.reached || now.trouble.is_some());
        let failed = matches!(timeout_at(until, known).await, Ok(Ok(now)) if !now.reached);
        let until = if failed {
            until.min(Instant::now() + HICCUP)
        } else {
            until
        };
        let reached = timeout_at(until, progress.wait_for(|now| now.reached)).await;
        match reached.map(|reached| reached.map(drop)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_ended)) => return Err(self.stopped()),
            Err(_elapsed) => {}
        }
        let trouble = progress.borrow().trouble.clone();
        let silent = || format!("Redis did not answer within {} ms", within.as_millis());
        Err(PublishError::Unreachable(trouble.unwrap_or_else(silent)))
    }

    /// Publishes one event of any kind and gives its seq; waits while the queue is full.
    ///
    /// # Errors
    /// [`PublishError`], but never `Full`.
    pub async fn publish(&self, kind: Kind, payload: &impl Serialize) -> Result<u64, PublishError> {
        self.shared.queue.push_when_room(kind, payload).await
    }

    /// Publishes one event of any kind and gives its seq, if there is room for it.
    ///
    /// # Errors
    /// [`PublishError::Full`] if there is none, and any other.
    pub fn try_publish(&self, kind: Kind, payload: &impl Serialize) -> Result<u64, PublishError> {
        self.shared.queue.try_push(kind, payload)
    }

    /// Publishes a piece of what the run produces, of any length: a longer one becomes several
    /// events. A finished line ends with a newline; viewers join the pieces.
    ///
    /// # Errors
    /// See [`publish`](Self::publish).
    pub async fn output(&self, text: &str) -> Result<(), PublishError> {
        for chunk in chunks(text) {
            let payload = event::Text {
                text: Some(chunk),
                ..event::Text::default()
            };
            self.publish(Kind::Output, &payload).await?;
        }
        Ok(())
    }

    /// Publishes a line of diagnostics; the newline is added.
    ///
    /// # Errors
    /// See [`publish`](Self::publish).
    pub async fn log(&self, level: &str, line: &str) -> Result<(), PublishError> {
        let mut rest = chunks(line).peekable();
        while let Some(text) = rest.next() {
            let line = LogLine {
                level,
                text,
                finished: rest.peek().is_none(),
            };
            self.publish(Kind::Log, &line).await?;
        }
        Ok(())
    }

    /// Publishes a change of state. The final one belongs into [`finish`](Self::finish).
    ///
    /// # Errors
    /// See [`publish`](Self::publish).
    pub async fn status(&self, change: &StatusChange) -> Result<(), PublishError> {
        self.publish(Kind::Status, change).await.map(drop)
    }

    /// Publishes how far the work has come.
    ///
    /// # Errors
    /// See [`publish`](Self::publish).
    pub async fn progress(&self, progress: &ProgressPayload<'_>) -> Result<(), PublishError> {
        self.publish(Kind::Progress, progress).await.map(drop)
    }

    /// Publishes named numbers, which must be finite.
    ///
    /// # Errors
    /// See [`publish`](Self::publish).
    pub async fn metric(&self, values: &[(&str, f64)]) -> Result<(), PublishError> {
        self.publish(Kind::Metric, &Metric(values)).await.map(drop)
    }

    /// Waits until everything that was published before is in Redis.
    ///
    /// # Errors
    /// [`PublishError::Deadline`] if it is not in time, or why it never will be.
    pub async fn flush(&self, within: Duration) -> Result<(), PublishError> {
        let target = self.shared.queue.last_seq();
        let queue = &self.shared.queue;
        // What was dropped meanwhile is not waited for.
        let reached = |now: &Progress| now.acked >= target.min(queue.last_seq());
        match self.wait_for(within, reached).await {
            Wait::Over => Ok(()),
            Wait::Stopped => Err(self.stopped()),
            Wait::Deadline => {
                let now = self.shared.progress.borrow().clone();
                Err(PublishError::Deadline {
                    unsent: target.saturating_sub(now.acked),
                    trouble: now.trouble,
                })
            }
        }
    }

    /// Ends the publisher: waits until Postgres holds everything, or for so long, and says where
    /// the events are then.
    ///
    /// # Errors
    /// If it was stopped by something else before, such as a newer process.
    pub async fn close(&self, within: Duration) -> Result<Closed, PublishError> {
        self.shared.queue.end(None)?;
        self.wait_closed(within).await
    }

    /// Publishes the last status, with the seal over everything before it, and closes.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub async fn finish(
        &self,
        change: StatusChange,
        within: Duration,
    ) -> Result<Closed, PublishError> {
        self.shared.queue.end(Some(change))?;
        self.wait_closed(within).await
    }

    async fn wait_for(&self, within: Duration, done: impl FnMut(&Progress) -> bool) -> Wait {
        let mut progress = self.shared.progress.clone();
        match timeout(within, progress.wait_for(done)).await {
            Ok(Ok(_reached)) => Wait::Over,
            Ok(Err(_ended)) => Wait::Stopped,
            Err(_elapsed) => Wait::Deadline,
        }
    }

    fn stopped(&self) -> PublishError {
        let why = self.shared.queue.stopped();
        why.map_or(PublishError::Closed, PublishError::Stopped)
    }
}
