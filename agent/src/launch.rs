//! What a publisher starts with: a new producer, or one that goes on where its spool ends.
//!
//! A spool that cannot be opened does not keep anybody from publishing: one warning names the folder
//! and the reason, and everything is kept in memory, as it would be without a spool.

use std::path::PathBuf;

use runcast_common::connect::Redis;
use runcast_common::protocol::event;
use runcast_common::protocol::keys::{Keys, RunKeys};
use uuid::Uuid;

use crate::backlog::Backlog;
use crate::spool::Spool;
use crate::spool::chain::Loss;
use crate::target::Options;

/// What a publisher is started for.
pub(crate) struct Launch {
    /// None if it is not known where to.
    pub(crate) redis: Option<Redis>,
    pub(crate) keys: RunKeys,
    /// The run's id in the spool, which is another one than in `keys` if that run did not exist yet.
    pub(crate) spooled_as: Uuid,
    pub(crate) variation: u16,
    /// Of this producer's spool.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) options: Options,
    /// Where to give signs of life; none for a process that only sends what another one left.
    pub(crate) pulse: Option<Keys>,
}

/// Who publishes, and what is left of an earlier process.
pub(crate) struct Opened {
    pub(crate) producer: Uuid,
    pub(crate) epoch: u64,
    pub(crate) backlog: Backlog,
    pub(crate) losses: Vec<Loss>,
    pub(crate) folder: Option<PathBuf>,
}

impl Launch {
    /// Opens the spool, if there is one.
    pub(crate) fn open(&self) -> Opened {
        self.open_spool().unwrap_or_else(|| Opened {
            producer: Uuid::now_v7(),
            epoch: event::now_ms(),
            backlog: Backlog::new(self.options.backlog_bytes),
            losses: Vec::new(),
            folder: None,
        })
    }

    fn open_spool(&self) -> Option<Opened> {
        let (folder, chosen) = self.folder.as_ref().zip(self.options.spool.as_ref())?;
        let opened = Spool::open(
            folder,
            self.spooled_as,
            self.variation,
            chosen.cap,
            chosen.fsync,
        );
        match opened {
            Ok((spool, mut chain)) => {
                let (producer, epoch) = spool.identity();
                Some(Opened {
                    producer,
                    epoch,
                    losses: std::mem::take(&mut chain.losses),
                    backlog: Backlog::spooled(self.options.backlog_bytes, spool, chain),
                    folder: Some(folder.clone()),
                })
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "the spool cannot be used, events are kept in memory only");
                None
            }
        }
    }
}
