//! How a publisher starts, where its task runs, and what starts beside the public way.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::control::Source;
use super::{Options, Publisher, Shared, StartError, Stopped, Target};
use crate::launch::Launch;
use crate::ledger::Ledger;
use crate::progress::Progress;
use crate::pulse::Life;
use crate::queue::Queue;
use crate::sender::{Identity, Sender};

/// How long a publisher that was dropped without `close` still tries to send what it has.
const DROP_GRACE: Duration = Duration::from_secs(5);

impl Publisher {
    /// Starts a publisher that sends whatever is left in a producer's folder to a run, which may be another one
    /// than it was spooled for.
    pub(crate) fn resend(
        target: &Target,
        spooled_as: Uuid,
        folder: PathBuf,
        options: Options,
    ) -> Result<Self, StartError> {
        Ok(Self::launch(Launch {
            redis: Some(Redis::new(&target.redis)?),
            keys: Keys::new(&target.prefix).run(target.run),
            spooled_as,
            variation: target.variation,
            folder: Some(folder),
            options,
            pulse: None,
        }))
    }

    /// Starts a publisher that sends nothing: it is not known yet where to. What it spools can be
    /// sent later.
    pub(crate) fn offline(run: Uuid, variation: u16, folder: PathBuf, options: Options) -> Self {
        Self::launch(Launch {
            redis: None,
            keys: Keys::new("").run(run),
            spooled_as: run,
            variation,
            folder: Some(folder),
            options,
            pulse: None,
        })
    }

    pub(super) fn launch(launch: Launch) -> Self {
        let opened = launch.open();
        let commands = launch.redis.clone().map(|redis| Source {
            redis,
            keys: launch.keys.clone(),
            variation: launch.variation,
        });
        let identity = Identity {
            producer: opened.producer,
            producer_epoch: opened.epoch,
            keys: launch.keys,
            cap: launch.options.cap,
        };
        let mut ledger = Ledger::new(opened.backlog, launch.variation);
        for loss in opened.losses {
            ledger.accept_gap(loss.count, loss.bytes);
        }
        let (progress_in, progress) = watch::channel(Progress::default());
        let kinds = &launch.options.drop_oldest;
        let shared = Arc::new(Shared {
            queue: Arc::new(Queue::new(launch.variation, ledger.newest(), kinds)),
            progress,
            stop: CancellationToken::new(),
            dropped: Arc::new(Notify::new()),
            ended: CancellationToken::new(),
            producer: identity.producer,
            producer_epoch: identity.producer_epoch,
            commands,
            spool: opened.folder,
        });
        if let Some((redis, keys)) = launch.redis.clone().zip(launch.pulse) {
            let life = Life {
                redis,
                keys,
                run: identity.keys.clone(),
                variation: launch.variation,
                producer: identity.producer,
                queue: Arc::clone(&shared.queue),
                progress: shared.progress.clone(),
                every: launch.options.pulse,
                ended: shared.ended.clone(),
            };
            life.begin();
        }
        let queue = Arc::clone(&shared.queue);
        let sender = Sender::new(queue, launch.redis, identity, ledger, progress_in);
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

/// Runs the sending task for as long as somebody wants it.
async fn supervise(
    mut sender: Sender,
    queue: Arc<Queue>,
    stop: CancellationToken,
    dropped: Arc<Notify>,
    // Whoever sends nothing any more is no sign of life either.
    _ended: DropGuard,
) {
    tokio::select! {
        () = sender.run() => return,
        () = stop.cancelled() => {}
        () = async {
            dropped.notified().await;
            if queue.last_seq() > 0 {
                sleep(DROP_GRACE).await;
                tracing::warn!("a publisher was dropped without close, and not all is stored");
            }
            queue.stop(Stopped::Closed);
        } => {}
    }
    sender.keep_rest();
}
