//! When the spool is synced to the disk, and on which thread.
//!
//! `Never` syncs nothing. `Always` syncs on the caller's thread, before the batch may be sent.
//! `Interval` syncs on a blocking thread, one sync at a time: data written meanwhile waits for the
//! next sync, so that a slow disk never gets a second request before it has finished the first.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::options::Fsync;

/// The policy, and whether there is unsynced data.
#[derive(Debug)]
pub(super) struct Syncer {
    policy: Fsync,
    has_unsynced: bool,
    last_at: Instant,
    is_running: Arc<AtomicBool>,
}

impl Syncer {
    pub(super) fn new(policy: Fsync) -> Self {
        Self {
            policy,
            has_unsynced: false,
            last_at: Instant::now(),
            is_running: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Data was written.
    pub(super) fn on_write(&mut self, file: &File) -> io::Result<()> {
        match self.policy {
            Fsync::Never => Ok(()),
            Fsync::Interval(_) => {
                self.has_unsynced = true;
                Ok(())
            }
            Fsync::Always => file.sync_data(),
        }
    }

    /// A segment was created: its directory entry must survive as well as its bytes.
    pub(super) fn on_create(&mut self, file: &File, folder: &Path) -> io::Result<()> {
        match self.policy {
            Fsync::Never => Ok(()),
            Fsync::Interval(_) => {
                self.has_unsynced = true;
                sync_in_background(File::open(folder)?, None);
                Ok(())
            }
            Fsync::Always => {
                file.sync_data()?;
                File::open(folder)?.sync_all()
            }
        }
    }

    /// Nothing more will be written to this file.
    pub(super) fn on_close(&mut self, file: File) {
        if std::mem::take(&mut self.has_unsynced) {
            sync_in_background(file, None);
        }
    }

    /// When the next sync is due; none without unsynced data.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match self.policy {
            Fsync::Interval(every) if self.has_unsynced => Some(self.last_at + every),
            _ => None,
        }
    }

    /// Syncs in the background if that is due and the previous sync has finished.
    pub(super) fn sync_if_due(&mut self, file: &File) {
        let now = Instant::now();
        if self.due_at().is_none_or(|at| now < at) {
            return;
        }
        self.last_at = now;
        let Ok(file) = file.try_clone() else { return };
        if !self.is_running.swap(true, Ordering::AcqRel) {
            self.has_unsynced = false;
            sync_in_background(file, Some(Arc::clone(&self.is_running)));
        }
    }

    /// Syncs unsynced data before it returns.
    pub(super) fn sync_now(&mut self, file: &File) {
        if std::mem::take(&mut self.has_unsynced)
            && let Err(error) = file.sync_data()
        {
            warn_sync_failed(&error);
        }
    }
}

fn sync_in_background(file: File, running: Option<Arc<AtomicBool>>) {
    let sync = move || {
        if let Err(error) = file.sync_data() {
            warn_sync_failed(&error);
        }
        if let Some(running) = running {
            running.store(false, Ordering::Release);
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(sync)),
        Err(_no_runtime) => sync(),
    }
}

fn warn_sync_failed(error: &io::Error) {
    tracing::warn!(%error, "the spool could not be synced to the disk");
}
