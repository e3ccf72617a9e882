//! What is open by a credential: streams end when that ends, or may do other things.
//!
//! All streams of one [`AuthSource`] share an [`StreamRegistration`], eight bytes for each of them, and no timer. Data: one entry for each
//! basis that has something open, which goes with the last of its streams. [`heard`](super::heard) finds out what
//! has ended; a socket that delivery holds is told by [`OpenStreams::endings`], everything else by [`StreamRegistration::ended`].
//!
//! Whoever opens something was found valid a moment ago, and a change may have been told since: what was heard is counted
//! before a principal is looked up and after its stream stands here, and where it differs, the credential is looked up again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::credential::AuthSource;
use super::principal::Principal;

/// Why something that was open has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The credential is not valid any more.
    Over,
    /// It may do other things than before.
    Changed,
}

impl Revocation {
    /// In words, for the last frame.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Over => "the session or token that this was opened by has ended",
            Self::Changed => "what may be read by this session or token has changed; open it again",
        }
    }
}

/// Everything that is open in this process, by what it rests on.
#[derive(Debug, Default)]
pub struct OpenStreams {
    open: Mutex<HashMap<AuthSource, Weak<Opening>>>,
    /// How often something was heard, or may have been missed.
    heard: AtomicU64,
    /// Some have to be looked up again.
    doubts: Notify,
    endings: watch::Sender<u64>,
}

/// What is open by one basis.
#[derive(Debug)]
pub(super) struct Opening {
    openings: Arc<OpenStreams>,
    pub(super) principal: Principal,
    is_doubtful: AtomicBool,
    ending: OnceLock<Revocation>,
    ended: CancellationToken,
}

/// Kept by a stream for as long as it is open. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct StreamRegistration(Arc<Opening>);

impl StreamRegistration {
    /// Why it has to end, if it has to.
    #[must_use]
    pub fn ending(&self) -> Option<Revocation> {
        self.0.ending.get().copied()
    }

    /// Waits until it has to end.
    pub async fn ended(&self) -> Revocation {
        self.0.ended.cancelled().await;
        // It is set before.
        self.ending().unwrap_or(Revocation::Over)
    }
}

/// Waits until something has to end that may be open by no credential.
pub async fn ended(opened: Option<&StreamRegistration>) -> Revocation {
    match opened {
        Some(opened) => opened.ended().await,
        None => std::future::pending().await,
    }
}

impl OpenStreams {
    /// Something is opened by this principal.
    pub fn open(self: &Arc<Self>, principal: &Principal) -> StreamRegistration {
        let new = Arc::new(Opening {
            openings: Arc::clone(self),
            principal: principal.clone(),
            is_doubtful: AtomicBool::new(false),
            ending: OnceLock::new(),
            ended: CancellationToken::new(),
        });
        // Nothing is dropped while this is locked: that would lock it again.
        let mut open = self.lock();
        let entry = open.entry(principal.basis().clone()).or_default();
        let (opening, replaced) = match entry.upgrade() {
            Some(old) if old.ending.get().is_none() && old.is_of(principal) => (old, None),
            old => {
                *entry = Arc::downgrade(&new);
                (Arc::clone(&new), old)
            }
        };
        drop(open);
        if let Some(replaced) = replaced {
            replaced.end(Revocation::Changed);
        }
        if self.heard() != principal.heard() {
            opening.doubt();
        }
        StreamRegistration(opening)
    }

    /// A number that grows whenever a change is heard of.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::SeqCst)
    }

    /// Changes whenever something has ended.
    #[must_use]
    pub fn endings(&self) -> watch::Receiver<u64> {
        self.endings.subscribe()
    }

    /// All that there is, after something may have been missed.
    pub(super) fn all(&self) -> Vec<Arc<Opening>> {
        self.heard.fetch_add(1, Ordering::SeqCst);
        self.those(|_| true)
    }

    /// What is open by these tokens, sessions and users, after they have changed.
    pub(super) fn of(&self, changed: &HashSet<Uuid>) -> Vec<Arc<Opening>> {
        self.heard.fetch_add(1, Ordering::SeqCst);
        self.those(|opening| {
            let principal = &opening.principal;
            let ids = [Some(principal.id), principal.user, principal.session];
            ids.iter().flatten().any(|id| changed.contains(id))
        })
    }

    /// Those that have to be looked up again.
    pub(super) fn doubtful(&self) -> Vec<Arc<Opening>> {
        self.those(|opening| opening.is_doubtful.swap(false, Ordering::SeqCst))
    }

    /// Returns once there is a doubt.
    pub(super) async fn doubts(&self) {
        self.doubts.notified().await;
    }

    fn those(&self, wanted: impl Fn(&Opening) -> bool) -> Vec<Arc<Opening>> {
        let all: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        all.into_iter().filter(|one| wanted(one)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AuthSource, Weak<Opening>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening {
    /// True if this principal may do what the one may whose it is.
    pub(super) fn is_of(&self, principal: &Principal) -> bool {
        self.principal.grants() == principal.grants()
    }

    /// True if whoever its credential stands for now may do by it what they might.
    pub(super) fn is_still(&self, now: &Principal) -> bool {
        let ticket = self.principal.basis().ticket.as_ref();
        self.is_of(&now.clone().by_ticket(ticket))
    }

    /// It will be looked up again.
    pub(super) fn doubt(&self) {
        self.is_doubtful.store(true, Ordering::SeqCst);
        self.openings.doubts.notify_one();
    }

    pub(super) fn end(&self, ending: Revocation) {
        if self.ending.set(ending).is_ok() {
            self.ended.cancel();
            self.openings.endings.send_modify(|count| *count += 1);
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut open = self.openings.lock();
        let basis = self.principal.basis();
        // Another may stand there by now.
        if open.get(basis).is_some_and(|one| one.strong_count() == 0) {
            open.remove(basis);
        }
    }
}
