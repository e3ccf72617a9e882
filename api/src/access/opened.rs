//! What is open by a credential: streams end when that ends, or may do other things.
//!
//! All streams of one [`Basis`] share an [`Opened`], eight bytes for each of them, and no timer. Data: one entry for each
//! basis that has something open, which goes with the last of its streams. [`heard`](super::heard) finds out what
//! has ended; a socket that delivery holds is told by [`Openings::endings`], everything else by [`Opened::ended`].
//!
//! Whoever opens something was found valid a moment ago, and a change may have been told since: what was heard is counted
//! before a principal is looked up and after its stream stands here, and where it differs, the credential is looked up again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::principal::Principal;
use super::ticket::Bounds;
use crate::http::problem::Problem;

/// What somebody was let in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Credential {
    /// A token, by its SHA-256.
    Token([u8; 32]),
    /// A session, by the SHA-256 of its id.
    Session([u8; 32]),
    /// A user who has just signed in.
    User(Uuid),
}

/// What somebody's rights rest on. By one credential and several tickets for it, different things may be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Basis {
    /// What they were let in by, or made the ticket with that they were let in by.
    pub credential: Credential,
    /// The bounds of that ticket, if it was one.
    pub ticket: Option<Bounds>,
}

impl From<Credential> for Basis {
    fn from(credential: Credential) -> Self {
        Self {
            credential,
            ticket: None,
        }
    }
}

/// Why something that was open has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The credential is not valid any more.
    Over,
    /// It may do other things than before.
    Changed,
}

impl Ending {
    /// In words, for the last frame.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Over => "the session or token that this was opened by has ended",
            Self::Changed => "what may be read by this session or token has changed; open it again",
        }
    }

    /// For an answer that has not begun.
    #[must_use]
    pub fn problem(self) -> Problem {
        match self {
            Self::Over => Problem::unauthorized(self.reason()),
            Self::Changed => Problem::forbidden(self.reason()),
        }
    }
}

/// Everything that is open in this process, by what it rests on.
#[derive(Debug, Default)]
pub struct Openings {
    open: Mutex<HashMap<Basis, Weak<Opening>>>,
    /// How often something was heard, or may have been missed.
    heard: AtomicU64,
    /// Some have to be looked up again.
    doubts: Notify,
    endings: watch::Sender<u64>,
}

/// What is open by one basis.
#[derive(Debug)]
pub(super) struct Opening {
    openings: Arc<Openings>,
    pub(super) principal: Principal,
    is_doubtful: AtomicBool,
    ending: OnceLock<Ending>,
    ended: CancellationToken,
}

/// Kept by a stream for as long as it is open. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Opened(Arc<Opening>);

impl Opened {
    /// Why it has to end, if it has to.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.0.ending.get().copied()
    }

    /// Waits until it has to end.
    pub async fn ended(&self) -> Ending {
        self.0.ended.cancelled().await;
        // It is set before.
        self.ending().unwrap_or(Ending::Over)
    }
}

/// Waits until something has to end that may be open by no credential.
pub async fn ended(opened: Option<&Opened>) -> Ending {
    match opened {
        Some(opened) => opened.ended().await,
        None => std::future::pending().await,
    }
}

impl Openings {
    /// Something is opened by this principal.
    pub fn open(self: &Arc<Self>, principal: &Principal) -> Opened {
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
            replaced.end(Ending::Changed);
        }
        if self.heard() != principal.heard() {
            opening.doubt();
        }
        Opened(opening)
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Basis, Weak<Opening>>> {
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

    pub(super) fn end(&self, ending: Ending) {
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
