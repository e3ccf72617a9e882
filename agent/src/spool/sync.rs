//! When what was written is synced to the disk: the policy, and who waits for it.
//!
//! `never` syncs nothing. `always` syncs in the caller's turn, before the batch may be sent.
//! `interval` syncs on a thread of its own, one sync at a time; what is written meanwhile waits for
//! the next one, so that a slow disk is never asked faster than it answers.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::target::Fsync;

/// The policy, and what is not synced yet.
#[derive(Debug)]
pub(crate) struct Sync {
    policy: Fsync,
    unsynced: bool,
    last: Instant,
    running: Arc<AtomicBool>,
}

impl Sync {
    /// Nothing is written yet.
    pub(crate) fn new(policy: Fsync) -> Self {
        Self {
            policy,
            unsynced: false,
            last: Instant::now(),
            running: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Something was written.
    pub(crate) fn written(&mut self, file: &File) -> io::Result<()> {
        match self.policy {
            Fsync::Never => Ok(()),
            Fsync::Interval(_) => {
                self.unsynced = true;
                Ok(())
            }
            Fsync::Always => file.sync_data(),
        }
    }

    /// A segment was created: its name must survive as well as its bytes.
    pub(crate) fn created(&mut self, file: &File, folder: &Path) -> io::Result<()> {
        match self.policy {
            Fsync::Never => Ok(()),
            Fsync::Interval(_) => {
                self.unsynced = true;
                in_background(File::open(folder)?, None);
                Ok(())
            }
            Fsync::Always => {
                file.sync_data()?;
                File::open(folder)?.sync_all()
            }
        }
    }

    /// Nothing more will be written to this file.
    pub(crate) fn closed(&mut self, file: File) {
        if std::mem::take(&mut self.unsynced) {
            in_background(file, None);
        }
    }

    /// When a sync is due, if one is.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.policy {
            Fsync::Interval(every) if self.unsynced => Some(self.last + every),
            _ => None,
        }
    }

    /// Syncs in the background if that is due and the last one is over.
    pub(crate) fn if_due(&mut self, file: &File) {
        let now = Instant::now();
        if self.due().is_none_or(|at| now < at) {
            return;
        }
        self.last = now;
        let Ok(file) = file.try_clone() else { return };
        if !self.running.swap(true, Ordering::AcqRel) {
            self.unsynced = false;
            in_background(file, Some(Arc::clone(&self.running)));
        }
    }

    /// Syncs before it returns, unless the policy is never to.
    pub(crate) fn now(&mut self, file: &File) {
        if std::mem::take(&mut self.unsynced)
            && let Err(error) = file.sync_data()
        {
            warn(&error);
        }
    }
}

fn in_background(file: File, running: Option<Arc<AtomicBool>>) {
    let sync = move || {
        if let Err(error) = file.sync_data() {
            warn(&error);
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

fn warn(error: &io::Error) {
    tracing::warn!(%error, "the spool cannot be synced to its disk");
}
