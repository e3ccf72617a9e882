//! [`Publisher`]: publishes events for one variation of a run.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use runcast_common::config::ProcessEnv;
//! use runcast_common::protocol::event::{Status, StatusChange};
//! use runcast_publisher::gateway_client::{GatewayClient, NewRun};
//! use runcast_publisher::{Options, Publisher};
//! use uuid::Uuid;
//!
//! runcast_common::connect::install_tls_provider();
//! let client = GatewayClient::from_env(&ProcessEnv)?;
//! let session = client.create_run(&NewRun::named("nightly"), Uuid::now_v7()).await?;
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
//! Publishing writes the event's line at once and puts it into a bounded queue; one task sends. The
//! publisher keeps an event until Postgres holds it, so a lost Redis costs a resend, not the event.
//! Without a spool, whatever is not in Redis is lost with the process. With one
//! ([`Options::spool`]) an event is in a file before it is sent, at most 50 ms after it was
//! published while the spool has room, and the next process with the same run, variation and folder
//! continues as the same producer.
//!
//! Memory, at most: the queue (8 MiB); bodies that are in no file ([`Options::buffer_bytes`], 64
//! MiB; with a spool only while it cannot be written); with a spool, bodies that are also in a file
//! (8 MiB); an index (1 Mi batches of 32 bytes, 32 MiB); and what is in flight on the connection (8
//! batches of 256 KiB to Redis, 24 to a gateway, twice). When queue and buffer are full, or the
//! spool is at its limit, events of the kinds in [`Options::drop_oldest`] drop the oldest waiting
//! ones, counted in a `gap` event; for all others the async calls wait and the `try_` calls return
//! [`PublishError::Full`].
//!
//! Control commands to the run come from [`Publisher::commands`]. Time limits are the caller's:
//! `flush`, `close` and `finish` take one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runcast_common::protocol::event::{self, Kind, Progress as ProgressPayload, StatusChange};
use runcast_common::protocol::keys::Keys;
use runcast_common::protocol::limits::MAX_VARIATIONS;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::close::WaitOutcome;
use super::commands::CommandSource;
use super::open::PublisherSetup;
use crate::error::{Closed, PublishError, StartError};
use crate::options::Options;
use crate::queue::event_queue::Queue;
use crate::queue::payload::{LogLine, Metric, chunks};
use crate::sender::progress::Progress;
use crate::spool::directory::producer_folder;
use crate::target::Target;
use crate::transport::selector::Routes;

/// How long [`Publisher::connected`] keeps waiting after the first failed attempt: a lost reply or
/// a restart of Redis is over by then, and a wrong address delays a command by three seconds only.
const RETRY_GRACE: Duration = Duration::from_secs(3);

/// Publishes for one variation of a run. Cloning is cheap, and all clones are one producer.
///
/// End it with [`close`](Self::close) or [`finish`](Self::finish). If the last clone is dropped
/// without either, the publisher keeps sending in the background for 5 s.
#[derive(Debug, Clone)]
pub struct Publisher {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Arc<Queue>,
    pub(super) progress: watch::Receiver<Progress>,
    /// Ends the sending task at once.
    pub(super) stop: CancellationToken,
    /// Notified when the last clone is dropped.
    pub(super) dropped: Arc<Notify>,
    /// Ends the heartbeats.
    pub(super) ended: CancellationToken,
    pub(super) producer: Uuid,
    pub(super) producer_epoch: u64,
    /// None if the target is not known.
    pub(super) commands: Option<CommandSource>,
    pub(super) spool: Option<PathBuf>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Cannot fail: there is no last status that could be rejected.
        drop(self.queue.end(None));
        self.dropped.notify_one();
        self.ended.cancel();
    }
}

impl Publisher {
    /// Starts a publisher within the current tokio runtime. It connects in the background and
    /// retries; [`connected`](Self::connected) waits for that.
    pub fn start(target: &Target, options: Options) -> Result<Self, StartError> {
        if target.variation >= MAX_VARIATIONS {
            return Err(StartError::Variation(target.variation));
        }
        let routes = Routes::new(target)?;
        let spool = options.spool.as_ref();
        let folder =
            spool.map(|spool| producer_folder(&spool.folder, target.run, target.variation));
        Ok(Self::launch(PublisherSetup {
            routes: Some(routes),
            run: target.run,
            spooled_as: target.run,
            variation: target.variation,
            folder,
            options,
            heartbeat: Some(Keys::new(&target.prefix)),
        }))
    }

    /// The producer's id, and the epoch of this process.
    pub fn producer(&self) -> (Uuid, u64) {
        (self.shared.producer, self.shared.producer_epoch)
    }

    /// The folder of this producer's spool; none if it has no spool or could not open it.
    pub fn spool(&self) -> Option<&Path> {
        self.shared.spool.as_deref()
    }

    /// Waits until Redis has answered a call of the append script.
    ///
    /// # Errors
    /// [`PublishError::Unreachable`] if it has not in time, or 3 s after the first failed attempt.
    /// The publisher itself keeps trying.
    pub async fn connected(&self, within: Duration) -> Result<(), PublishError> {
        let mut progress = self.shared.progress.clone();
        // 1. Wait for the first reply or the first failure.
        let mut until = Instant::now() + within;
        let first = progress.wait_for(|now| now.reached || now.trouble.is_some());
        let has_failed = matches!(timeout_at(until, first).await, Ok(Ok(now)) if !now.reached);
        // 2. After a failure, give it a little longer.
        if has_failed {
            until = until.min(Instant::now() + RETRY_GRACE);
        }
        let reached = timeout_at(until, progress.wait_for(|now| now.reached)).await;
        match reached.map(|reached| reached.map(drop)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_ended)) => return Err(self.stopped()),
            Err(_elapsed) => {}
        }
        // 3. Say what the problem is.
        let trouble = progress.borrow().trouble.clone();
        let silent = || format!("Redis did not answer within {} ms", within.as_millis());
        Err(PublishError::Unreachable(trouble.unwrap_or_else(silent)))
    }

    /// Publishes an event of any kind and returns its seq. Waits while the queue is full, so it
    /// never returns [`PublishError::Full`].
    pub async fn publish(&self, kind: Kind, payload: &impl Serialize) -> Result<u64, PublishError> {
        self.shared.queue.push_when_room(kind, payload).await
    }

    /// Publishes an event of any kind and returns its seq, or [`PublishError::Full`] without
    /// waiting.
    pub fn try_publish(&self, kind: Kind, payload: &impl Serialize) -> Result<u64, PublishError> {
        self.shared.queue.try_push(kind, payload)
    }

    /// Publishes output of any length; a long text becomes several events. End a line with a
    /// newline; viewers join the pieces.
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

    /// Publishes a log line of any length, and adds the newline.
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

    /// Publishes a change of the status. Give the final one to [`finish`](Self::finish) instead.
    pub async fn status(&self, change: &StatusChange) -> Result<(), PublishError> {
        self.publish(Kind::Status, change).await.map(drop)
    }

    /// Publishes how far the work has come.
    pub async fn progress(&self, progress: &ProgressPayload<'_>) -> Result<(), PublishError> {
        self.publish(Kind::Progress, progress).await.map(drop)
    }

    /// Publishes named numbers, which must be finite.
    pub async fn metric(&self, values: &[(&str, f64)]) -> Result<(), PublishError> {
        self.publish(Kind::Metric, &Metric(values)).await.map(drop)
    }

    /// Waits until Redis holds everything that was published before, or returns
    /// [`PublishError::Deadline`].
    pub async fn flush(&self, within: Duration) -> Result<(), PublishError> {
        let target = self.shared.queue.last_seq();
        let queue = &self.shared.queue;
        // Events that are dropped meanwhile lower the last seq: do not wait for them.
        let is_reached = |now: &Progress| now.acked >= target.min(queue.last_seq());
        match self.wait_for(within, is_reached).await {
            WaitOutcome::Reached => Ok(()),
            WaitOutcome::Stopped => Err(self.stopped()),
            WaitOutcome::Deadline => {
                let now = self.shared.progress.borrow().clone();
                Err(PublishError::Deadline {
                    unsent: target.saturating_sub(now.acked),
                    trouble: now.trouble,
                })
            }
        }
    }

    /// Closes the publisher: waits until Postgres holds everything, but at most this long, and
    /// returns where the events are. Fails only if something else stopped it before, such as a
    /// newer process.
    pub async fn close(&self, within: Duration) -> Result<Closed, PublishError> {
        self.shared.queue.end(None)?;
        self.wait_closed(within).await
    }

    /// Publishes the last status, with the seal over everything before it, and closes the publisher
    /// as [`close`](Self::close) does.
    pub async fn finish(
        &self,
        change: StatusChange,
        within: Duration,
    ) -> Result<Closed, PublishError> {
        self.shared.queue.end(Some(change))?;
        self.wait_closed(within).await
    }

    pub(super) async fn wait_for(
        &self,
        within: Duration,
        is_reached: impl FnMut(&Progress) -> bool,
    ) -> WaitOutcome {
        let mut progress = self.shared.progress.clone();
        match timeout(within, progress.wait_for(is_reached)).await {
            Ok(Ok(_reached)) => WaitOutcome::Reached,
            Ok(Err(_ended)) => WaitOutcome::Stopped,
            Err(_elapsed) => WaitOutcome::Deadline,
        }
    }

    fn stopped(&self) -> PublishError {
        let reason = self.shared.queue.stopped();
        reason.map_or(PublishError::Closed, PublishError::Stopped)
    }
}
