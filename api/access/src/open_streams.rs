//! [`OpenStreams`]: the open streams of this process, by credential. Revoking or changing a
//! credential closes its streams.
//!
//! All streams of one [`AuthSource`] share a [`StreamGroup`]: a stream costs eight bytes and no
//! timer. Data: one entry for each auth source with open streams, removed with the last of them.
//! [`revocations`](crate::revocations) decides which groups end. A thread that writes to sockets
//! learns of it by [`OpenStreams::revocations`], all others by [`StreamRegistration::revoked`].
//!
//! A credential may change between its look-up and the registration of its stream. The revocation
//! generation is therefore read before a principal is looked up, and again after its stream is
//! registered. If they differ, the credential is looked up again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::credential::AuthSource;
use crate::principal::Principal;

/// Why an open stream has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The credential is not valid any more.
    Ended,
    /// The rights of the credential have changed.
    Changed,
}

impl Revocation {
    /// The message in the last frame of a stream.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Ended => "the session or token that opened this stream has ended",
            Self::Changed => {
                "what the session or token that opened this stream may read has changed; \
                 open it again"
            }
        }
    }
}

/// The open streams of this process.
#[derive(Debug, Default)]
pub struct OpenStreams {
    groups: Mutex<HashMap<AuthSource, Weak<StreamGroup>>>,
    /// Counts the changes of access that this process received or may have missed.
    revocation_generation: AtomicU64,
    /// Notified when a group has to be looked up again.
    recheck: Notify,
    /// Counts the groups that have ended.
    revoked: watch::Sender<u64>,
}

/// The open streams of one auth source.
#[derive(Debug)]
pub(super) struct StreamGroup {
    open_streams: Arc<OpenStreams>,
    pub(super) principal: Principal,
    needs_recheck: AtomicBool,
    revocation: OnceLock<Revocation>,
    revoked: CancellationToken,
}

/// Held by a stream while it is open. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct StreamRegistration(Arc<StreamGroup>);

impl StreamRegistration {
    /// Why the stream has to end, if it has to.
    pub fn revocation(&self) -> Option<Revocation> {
        self.0.revocation.get().copied()
    }

    /// Waits until the stream has to end.
    pub async fn revoked(&self) -> Revocation {
        self.0.revoked.cancelled().await;
        // The reason is set before the token is cancelled.
        self.revocation().unwrap_or(Revocation::Ended)
    }
}

/// Waits until the stream has to end: forever if it was opened without a credential.
pub async fn revoked(registration: Option<&StreamRegistration>) -> Revocation {
    match registration {
        Some(registration) => registration.revoked().await,
        None => std::future::pending().await,
    }
}

impl OpenStreams {
    /// Registers a stream of this principal.
    pub fn open(self: &Arc<Self>, principal: &Principal) -> StreamRegistration {
        let new = Arc::new(StreamGroup {
            open_streams: Arc::clone(self),
            principal: principal.clone(),
            needs_recheck: AtomicBool::new(false),
            revocation: OnceLock::new(),
            revoked: CancellationToken::new(),
        });
        // Join the group of the auth source, unless that has ended or has other rights.
        // No group may be dropped under the lock, since dropping one takes the lock.
        let mut groups = self.lock();
        let entry = groups.entry(principal.auth_source().clone()).or_default();
        let (group, replaced) = match entry.upgrade() {
            Some(old) if old.revocation.get().is_none() && old.has_rights_of(principal) => {
                (old, None)
            }
            old => {
                *entry = Arc::downgrade(&new);
                (Arc::clone(&new), old)
            }
        };
        drop(groups);
        if let Some(replaced) = replaced {
            replaced.revoke(Revocation::Changed);
        }
        // A change may have arrived since the principal was looked up.
        if self.revocation_generation() != principal.revocation_generation() {
            group.request_recheck();
        }
        StreamRegistration(group)
    }

    /// A number that grows with every change of access that this process receives.
    pub fn revocation_generation(&self) -> u64 {
        self.revocation_generation.load(Ordering::SeqCst)
    }

    /// A channel that changes whenever streams have to end.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    /// All groups, after a change may have been missed.
    pub(super) fn all(&self) -> Vec<Arc<StreamGroup>> {
        self.revocation_generation.fetch_add(1, Ordering::SeqCst);
        self.filter(|_| true)
    }

    /// The groups whose rights rest on these tokens, sessions and users, after they have changed.
    pub(super) fn affected_by(&self, changed: &HashSet<Uuid>) -> Vec<Arc<StreamGroup>> {
        self.revocation_generation.fetch_add(1, Ordering::SeqCst);
        self.filter(|group| group.principal.rests_on().any(|id| changed.contains(&id)))
    }

    /// The groups that have to be looked up again. Their marks are cleared.
    pub(super) fn take_rechecks(&self) -> Vec<Arc<StreamGroup>> {
        self.filter(|group| group.needs_recheck.swap(false, Ordering::SeqCst))
    }

    /// Waits until a group has to be looked up again.
    pub(super) async fn recheck_requested(&self) {
        self.recheck.notified().await;
    }

    fn filter(&self, is_selected: impl Fn(&StreamGroup) -> bool) -> Vec<Arc<StreamGroup>> {
        let all: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        all.into_iter().filter(|group| is_selected(group)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AuthSource, Weak<StreamGroup>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamGroup {
    /// Whether a principal has the same rights as the one that opened these streams.
    fn has_rights_of(&self, principal: &Principal) -> bool {
        self.principal.grants() == principal.grants()
    }

    /// Whether the credential, which now authenticates `now`, has the same rights as when it opened
    /// these streams.
    pub(super) fn is_unchanged(&self, now: &Principal) -> bool {
        let ticket = self.principal.auth_source().ticket.as_ref();
        self.has_rights_of(&now.clone().by_ticket(ticket))
    }

    /// Has the credential looked up again.
    pub(super) fn request_recheck(&self) {
        self.needs_recheck.store(true, Ordering::SeqCst);
        self.open_streams.recheck.notify_one();
    }

    /// Ends the streams; the first reason counts.
    pub(super) fn revoke(&self, revocation: Revocation) {
        if self.revocation.set(revocation).is_ok() {
            self.revoked.cancel();
            self.open_streams.revoked.send_modify(|count| *count += 1);
        }
    }
}

impl Drop for StreamGroup {
    fn drop(&mut self) {
        let mut groups = self.open_streams.lock();
        let auth_source = self.principal.auth_source();
        // Another group may have taken its place.
        let is_own = groups.get(auth_source);
        if is_own.is_some_and(|group| group.strong_count() == 0) {
            groups.remove(auth_source);
        }
    }
}
