//! What a publisher starts with: a new producer, or one that continues a spool.
//!
//! A spool that cannot be opened does not prevent publishing: one warning names the folder and the
//! reason, and events are kept in memory, as without a spool.

use std::path::PathBuf;

use runcast_common::protocol::event;
use runcast_common::protocol::keys::Keys;
use uuid::Uuid;

use crate::options::Options;
use crate::retransmit::buffer::RetransmitBuffer;
use crate::spool::recovery::LostEvents;
use crate::spool::writer::Spool;
use crate::transport::selector::Routes;

/// What a publisher is started with.
pub(super) struct PublisherSetup {
    /// None if the target is not known.
    pub(super) routes: Option<Routes>,
    pub(super) run: Uuid,
    /// The run's id in the spool. It differs from `run` if the run did not exist when the spool was
    /// written.
    pub(super) spooled_as: Uuid,
    pub(super) variation: u16,
    /// The folder of this producer's spool.
    pub(super) folder: Option<PathBuf>,
    pub(super) options: Options,
    /// The keys for heartbeats; none for a process that only sends another one's spool.
    pub(super) heartbeat: Option<Keys>,
}

/// The producer, and what an earlier process of it left.
pub(super) struct OpenedSpool {
    pub(super) producer: Uuid,
    pub(super) epoch: u64,
    pub(super) buffer: RetransmitBuffer,
    pub(super) lost: Vec<LostEvents>,
    pub(super) folder: Option<PathBuf>,
}

impl PublisherSetup {
    /// Opens the spool if there is one, else starts a new producer.
    pub(super) fn open(&self) -> OpenedSpool {
        self.open_spool().unwrap_or_else(|| OpenedSpool {
            producer: Uuid::now_v7(),
            epoch: event::now_ms(),
            buffer: RetransmitBuffer::new(self.options.buffer_bytes),
            lost: Vec::new(),
            folder: None,
        })
    }

    fn open_spool(&self) -> Option<OpenedSpool> {
        let (folder, options) = self.folder.as_ref().zip(self.options.spool.as_ref())?;
        let opened = Spool::open(
            folder,
            self.spooled_as,
            self.variation,
            options.max_bytes,
            options.fsync,
        );
        match opened {
            Ok((spool, mut recovered)) => {
                let (producer, epoch) = spool.identity();
                Some(OpenedSpool {
                    producer,
                    epoch,
                    lost: std::mem::take(&mut recovered.lost),
                    buffer: RetransmitBuffer::with_spool(
                        self.options.buffer_bytes,
                        spool,
                        recovered,
                    ),
                    folder: Some(folder.clone()),
                })
            }
            Err(error) => {
                tracing::warn!(
                    folder = %folder.display(),
                    %error,
                    "the spool cannot be used, events are kept in memory only"
                );
                None
            }
        }
    }
}
