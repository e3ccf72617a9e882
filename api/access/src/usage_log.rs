//! How often tokens are used, and whose sign-ins fail: counted in memory, and written down every [`EVERY`], so that no
//! request writes, and none takes longer because there is such a user.
//!
//! At most [`MOST`] tokens and as many users are remembered between two writes; what has no room, or was not written when a
//! process died, is lost, the former counted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use rand::RngExt as _;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::access::Access;
use runcast_store::audit::Actor;
use runcast_store::tokens::Uses;
use runcast_store::{Store, StoreError};

/// Between two writes, more or less.
const EVERY: Duration = Duration::from_secs(10);

/// Longest time that the last write may take when a process stops.
const LAST: Duration = Duration::from_secs(3);

/// Tokens, and users, that are remembered.
const MOST: usize = 100_000;

/// Tokens of one statement.
const SOME: usize = 1000;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct UsageLog {
    kept: Mutex<PendingUses>,
}

#[derive(Debug, Default)]
struct PendingUses {
    uses: HashMap<Uuid, Uses>,
    /// Failed sign-ins of users, with their names.
    failures: HashMap<Uuid, (String, u64)>,
}

impl UsageLog {
    fn lock(&self) -> MutexGuard<'_, PendingUses> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Access {
    /// A request came with this token.
    pub(super) fn note_use(&self, token: Uuid) {
        self.put_uses(
            token,
            Uses {
                count: 1,
                last: Utc::now(),
            },
        );
    }

    fn put_uses(&self, token: Uuid, more: Uses) {
        let mut kept = self.notes().lock();
        if let Some(uses) = kept.uses.get_mut(&token) {
            uses.count += more.count;
            uses.last = uses.last.max(more.last);
        } else if kept.uses.len() < MOST {
            kept.uses.insert(token, more);
        } else {
            drop(kept);
            self.meter().lost(1);
        }
    }

    /// Somebody tried to sign in as this user, and could not.
    pub fn note_failed_sign_in(&self, user: Uuid, name: &str) {
        let mut kept = self.notes().lock();
        if let Some((_, count)) = kept.failures.get_mut(&user) {
            *count += 1;
        } else if kept.failures.len() < MOST {
            kept.failures.insert(user, (name.to_owned(), 1));
        } else {
            drop(kept);
            self.meter().lost(1);
        }
    }

    /// Writes until told to stop, and then once more.
    pub async fn write_notes(self, stop: CancellationToken) {
        loop {
            let wait = sleep(EVERY.mul_f64(rand::rng().random_range(0.8..=1.2)));
            let stopped = stop.run_until_cancelled(wait).await.is_none();
            let writing = self.write();
            if !stopped {
                writing.await;
            } else if timeout(LAST, writing).await.is_err() {
                warn!("the last uses of tokens could not be written in time");
            }
            if stopped {
                return;
            }
        }
    }

    async fn write(&self) {
        let PendingUses { uses, failures } = std::mem::take(&mut *self.notes().lock());
        let uses: Vec<_> = uses.into_iter().collect();
        for some in uses.chunks(SOME) {
            if let Err(error) = self.store().count_token_uses(some).await {
                warn!(%error, "uses of tokens are written later");
                for (token, uses) in some {
                    self.put_uses(*token, *uses);
                }
            }
        }
        for (user, (name, count)) in failures {
            if let Err(error) = failed_sign_ins(self.store(), user, &name, count).await {
                warn!(%error, %user, count, "failed sign-ins are told here alone");
                self.meter().lost(count);
            }
        }
    }
}

/// Whoever it was is not known: the entry names whom they said they are, as its target.
async fn failed_sign_ins(
    store: &Store,
    user: Uuid,
    name: &str,
    count: u64,
) -> Result<(), StoreError> {
    let nobody = Actor {
        id: None,
        name: "unknown".to_owned(),
    };
    let details = json!({"name": name, "count": count});
    store
        .audit(&nobody, "session.failed", &user.to_string(), details)
        .await
}
