//! [`UsageLog`]: records token uses and failed sign-ins. It counts them in memory and writes them
//! to Postgres every [`WRITE_INTERVAL`], so no request writes, and a sign-in takes equally long
//! whether the user exists or not.
//!
//! Between two writes it remembers at most [`MAX_PENDING_SUBJECTS`] tokens and as many users. What
//! does not fit is dropped and counted. What was not written when a process died is lost.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use rand::RngExt as _;
use runcast_store::audit::Actor;
use runcast_store::tokens::Uses;
use runcast_store::{Store, StoreError};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::metrics::Metrics;

/// Between two writes, with jitter.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Longest time for the last write when a process stops.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(3);

/// Tokens, and users, that are remembered between two writes.
const MAX_PENDING_SUBJECTS: usize = 100_000;

/// Tokens in one statement.
const MAX_STATEMENT_TOKENS: usize = 1000;

/// Token uses and failed sign-ins that are not written yet.
#[derive(Debug)]
pub(crate) struct UsageLog {
    pending: Mutex<PendingUsage>,
    store: Store,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct PendingUsage {
    uses: HashMap<Uuid, Uses>,
    /// Failed sign-ins by user, with the name of the user.
    failures: HashMap<Uuid, (String, u64)>,
}

impl UsageLog {
    pub(crate) fn new(store: Store, metrics: Metrics) -> Self {
        Self {
            pending: Mutex::default(),
            store,
            metrics,
        }
    }

    /// Records a request with this token.
    pub(crate) fn record_use(&self, token: Uuid) {
        let uses = Uses {
            count: 1,
            last: Utc::now(),
        };
        self.add_uses(token, uses);
    }

    fn add_uses(&self, token: Uuid, more: Uses) {
        let mut pending = self.lock();
        if let Some(uses) = pending.uses.get_mut(&token) {
            uses.count += more.count;
            uses.last = uses.last.max(more.last);
        } else if pending.uses.len() < MAX_PENDING_SUBJECTS {
            pending.uses.insert(token, more);
        } else {
            drop(pending);
            self.metrics.usage_dropped(1);
        }
    }

    /// Records a failed sign-in as this user.
    pub(crate) fn record_failed_sign_in(&self, user: Uuid, name: &str) {
        let mut pending = self.lock();
        if let Some((_, count)) = pending.failures.get_mut(&user) {
            *count += 1;
        } else if pending.failures.len() < MAX_PENDING_SUBJECTS {
            pending.failures.insert(user, (name.to_owned(), 1));
        } else {
            drop(pending);
            self.metrics.usage_dropped(1);
        }
    }

    /// Writes until `stop`, and then once more.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            let wait = sleep(WRITE_INTERVAL.mul_f64(rand::rng().random_range(0.8..=1.2)));
            let stopped = stop.run_until_cancelled(wait).await.is_none();
            let writing = self.write();
            if !stopped {
                writing.await;
            } else if timeout(SHUTDOWN_DEADLINE, writing).await.is_err() {
                warn!(
                    "could not write the last token uses within {SHUTDOWN_DEADLINE:?}; \
                     they are lost"
                );
            }
            if stopped {
                return;
            }
        }
    }

    async fn write(&self) {
        let PendingUsage { uses, failures } = std::mem::take(&mut *self.lock());
        // Token uses that could not be written are tried again with the next write.
        let uses: Vec<_> = uses.into_iter().collect();
        for chunk in uses.chunks(MAX_STATEMENT_TOKENS) {
            if let Err(error) = self.store.count_token_uses(chunk).await {
                warn!(%error, "could not write token uses; trying again later");
                for (token, uses) in chunk {
                    self.add_uses(*token, *uses);
                }
            }
        }
        // Failed sign-ins go to the audit log, or else only to this log.
        for (user, (name, count)) in failures {
            if let Err(error) = self.audit_failures(user, &name, count).await {
                warn!(
                    %error, %user, count,
                    "could not write failed sign-ins to the audit log; they are only logged here"
                );
                self.metrics.usage_dropped(count);
            }
        }
    }

    /// It is unknown who tried to sign in: the entry has the user they named as its target.
    async fn audit_failures(&self, user: Uuid, name: &str, count: u64) -> Result<(), StoreError> {
        let unknown = Actor {
            id: None,
            name: "unknown".to_owned(),
            address: None,
        };
        let details = json!({"name": name, "count": count});
        self.store
            .audit(&unknown, "session.failed", &user.to_string(), details)
            .await
    }

    fn lock(&self) -> MutexGuard<'_, PendingUsage> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
