//! How a publisher starts and its task ends, and the ways to start one without a gateway's reply.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::commands::CommandSource;
use super::handle::{Publisher, Shared};
use super::open::PublisherSetup;
use crate::error::{StartError, Stopped};
use crate::gateway_client::ProducerOfRun;
use crate::heartbeat::task::HeartbeatTask;
use crate::options::Options;
use crate::queue::event_queue::Queue;
use crate::sender::progress::Progress;
use crate::sender::task::{Identity, Sender};
use crate::target::Target;
use crate::transport::notices::{NoticeReader, Notices};
use crate::transport::selector::{ActiveTransport, Routes, TransportSelector};

/// How long a publisher that was dropped without `close` keeps sending.
const DROP_GRACE: Duration = Duration::from_secs(5);

impl Publisher {
    /// Starts a publisher that sends what is left in a producer's spool folder, and no heartbeats.
    /// The target may be another run than `spooled_as`, the run that the folder was written for.
    pub fn resend(
        target: &Target,
        spooled_as: Uuid,
        folder: PathBuf,
        options: Options,
    ) -> Result<Self, StartError> {
        Ok(Self::launch(PublisherSetup {
            routes: Some(Routes::new(target)?),
            run: target.run,
            spooled_as,
            variation: target.variation,
            folder: Some(folder),
            options,
            heartbeat: None,
        }))
    }

    /// Starts a publisher without a target: it only spools. [`resend`](Self::resend) sends it
    /// later.
    #[must_use]
    pub fn offline(run: Uuid, variation: u16, folder: PathBuf, options: Options) -> Self {
        Self::launch(PublisherSetup {
            routes: None,
            run,
            spooled_as: run,
            variation,
            folder: Some(folder),
            options,
            heartbeat: None,
        })
    }

    pub(super) fn launch(setup: PublisherSetup) -> Self {
        // 1. The producer and its buffer. Lost events become the first gaps.
        let mut opened = setup.open();
        for lost in &opened.lost {
            opened
                .buffer
                .push_gap(setup.variation, lost.count, lost.bytes);
        }
        let producer = ProducerOfRun {
            run: setup.run,
            producer: opened.producer,
            epoch: opened.epoch,
        };
        // 2. What all clones of the publisher share.
        let (active_in, active) = watch::channel(ActiveTransport::None);
        let (notices_in, notices) = watch::channel(Notices::default());
        let (progress_in, progress) = watch::channel(Progress::default());
        let droppable = &setup.options.drop_oldest;
        let queue = Queue::new(setup.variation, opened.buffer.newest(), droppable);
        let commands = setup.routes.as_ref().map(|routes| CommandSource {
            keys: routes.keys().clone(),
            variation: setup.variation,
            active: active.clone(),
            notices: notices.clone(),
        });
        let shared = Arc::new(Shared {
            queue: Arc::new(queue),
            progress,
            stop: CancellationToken::new(),
            dropped: Arc::new(Notify::new()),
            ended: CancellationToken::new(),
            producer: producer.producer,
            producer_epoch: producer.epoch,
            commands,
            spool: opened.folder,
        });
        // 3. Heartbeats, notices and the sending task.
        if let Some(heartbeats) = heartbeat_task(&setup, &shared, &active) {
            heartbeats.spawn();
        }
        let reader = NoticeReader {
            producer,
            variation: setup.variation,
            active,
            notices: notices_in,
        };
        let transports = setup
            .routes
            .map(|routes| TransportSelector::new(routes, producer, active_in));
        let identity = Identity {
            producer: producer.producer,
            producer_epoch: producer.epoch,
            run: producer.run,
            cap: setup.options.cap,
        };
        let sender = Sender::new(
            Arc::clone(&shared.queue),
            transports,
            notices,
            identity,
            opened.buffer,
            setup.variation,
            progress_in,
        );
        let ended = shared.ended.clone();
        tokio::spawn(async move { ended.run_until_cancelled(reader.run()).await });
        tokio::spawn(supervise(
            sender,
            Arc::clone(&shared.queue),
            shared.stop.clone(),
            Arc::clone(&shared.dropped),
            shared.ended.clone().drop_guard(),
        ));
        Self { shared }
    }
}

/// The heartbeats of a publisher; none without a gateway or without heartbeats.
fn heartbeat_task(
    setup: &PublisherSetup,
    shared: &Shared,
    active: &watch::Receiver<ActiveTransport>,
) -> Option<HeartbeatTask> {
    let (routes, keys) = setup.routes.as_ref().zip(setup.heartbeat.clone())?;
    Some(HeartbeatTask {
        active: active.clone(),
        gateway: routes.gateway().cloned(),
        keys,
        run: routes.keys().clone(),
        variation: setup.variation,
        producer: shared.producer,
        queue: Arc::clone(&shared.queue),
        progress: shared.progress.clone(),
        interval: setup.options.heartbeat_interval,
        ended: shared.ended.clone(),
    })
}

/// Runs the sending task until it is done, the publisher is closed, or it was dropped.
async fn supervise(
    mut sender: Sender,
    queue: Arc<Queue>,
    stop: CancellationToken,
    dropped: Arc<Notify>,
    // Ends the heartbeats with the task.
    _ended: DropGuard,
) {
    tokio::select! {
        () = sender.run() => return,
        () = stop.cancelled() => {}
        () = async {
            dropped.notified().await;
            if queue.last_seq() > 0 {
                sleep(DROP_GRACE).await;
                tracing::warn!("a publisher was dropped without close, some events are not stored");
            }
            queue.stop(Stopped::Closed);
        } => {}
    }
    sender.spool_rest();
}
