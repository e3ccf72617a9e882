//! [`Invalidator`]: brings changes of access from Postgres to Redis. It deletes the copies of what
//! has changed and notifies all gateways.
//!
//! Postgres holds an outbox of changes, which triggers fill in the transaction of each change,
//! whether a gateway, the command line or `psql` makes it. A gateway that makes a change empties
//! the outbox before it answers ([`Invalidator::apply_now`]), so a client that got the answer to a
//! revocation can rely on it, at every gateway. For all other changes each gateway runs a task:
//! Postgres wakes it, and it reads the outbox every [`POLL_INTERVAL`] as well, since a wake-up may
//! be lost. While Redis does not answer, the outbox waits; gateways that cannot reach Redis read
//! Postgres anyway.

use std::time::Duration;

use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use runcast_common::cache::LeaseCache;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, Slot};
use runcast_common::redis;
use runcast_common::run_users::{RunUser, RunUsers};
use runcast_store::access_outbox::{AccessChange, ChangedSubject};
use runcast_store::{Store, StoreError};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::metrics::Metrics;

/// Between two reads of the outbox without a wake-up, with jitter.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Longest time to empty the outbox, and so for an answer to wait for Redis.
const APPLY_DEADLINE: Duration = Duration::from_secs(2);

/// Why the outbox could not be emptied.
#[derive(Debug, thiserror::Error)]
enum InvalidationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    #[error("the changes of access could not be applied within {APPLY_DEADLINE:?}")]
    Timeout,
}

/// Empties the outbox of access changes.
#[derive(Debug)]
pub(crate) struct Invalidator {
    store: Store,
    redis: Redis,
    keys: Keys,
    cache: LeaseCache,
    run_users: Option<RunUsers>,
    metrics: Metrics,
}

impl Invalidator {
    pub(crate) const fn new(
        store: Store,
        redis: Redis,
        keys: Keys,
        cache: LeaseCache,
        run_users: Option<RunUsers>,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            redis,
            keys,
            cache,
            run_users,
            metrics,
        }
    }

    /// Applies all changes until now, this process's own among them. What Redis does not accept is
    /// applied later: the change itself is committed in Postgres.
    pub(crate) async fn apply_now(&self) {
        if let Err(error) = self.apply_in_time().await {
            warn!(%error, "a change of access is stored but not applied yet; trying again later");
        }
    }

    /// Applies changes whenever there are some, until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut backoff = Backoff::for_connections();
        let mut is_healthy = true;
        let working = async {
            loop {
                match self.listen(&mut backoff, &mut is_healthy).await {
                    Ok(()) => debug!("the connection that reports changes of access ended"),
                    Err(error) if backoff.attempts() == 0 => {
                        warn!(%error, "cannot listen for changes of access; polling for now");
                    }
                    Err(error) => debug!(%error, "still cannot listen for changes of access"),
                }
                self.apply(&mut is_healthy).await;
                sleep(backoff.next_wait()).await;
            }
        };
        stop.run_until_cancelled(working).await;
    }

    /// Applies changes while one connection to Postgres lasts.
    async fn listen(&self, backoff: &mut Backoff, is_healthy: &mut bool) -> Result<(), StoreError> {
        let mut listener = self.store.access_change_listener().await?;
        backoff.reset();
        loop {
            // Read after LISTEN began, so that no change falls in between.
            self.apply(is_healthy).await;
            let jitter = rand::rng().random_range(0.8..=1.2);
            let next = Instant::now() + POLL_INTERVAL.mul_f64(jitter);
            tokio::select! {
                notified = listener.try_recv() => match notified {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error.into()),
                },
                () = sleep_until(next) => {}
            }
        }
    }

    /// Applies changes; warns once when that begins to fail.
    async fn apply(&self, is_healthy: &mut bool) {
        let outcome = self.apply_in_time().await;
        match (&outcome, *is_healthy) {
            (Ok(()), _) => {}
            (Err(error), true) => {
                warn!(
                    %error,
                    "cannot apply changes of access; they stay in Postgres and are tried again"
                );
            }
            (Err(error), false) => debug!(%error, "still cannot apply changes of access"),
        }
        *is_healthy = outcome.is_ok();
    }

    async fn apply_in_time(&self) -> Result<(), InvalidationError> {
        let applied = timeout(APPLY_DEADLINE, self.empty_outbox()).await;
        applied.unwrap_or(Err(InvalidationError::Timeout))
    }

    async fn empty_outbox(&self) -> Result<(), InvalidationError> {
        loop {
            // Claimed changes are locked: other gateways wait for them.
            let claimed = self.store.take_access_changes().await?;
            if claimed.changes.is_empty() {
                return Ok(());
            }
            // Delete the copies first, so that a notified gateway reads what has changed.
            let changes = claimed.changes.iter();
            let keys: Vec<String> = changes.filter_map(|change| self.key(change)).collect();
            self.cache.delete(&keys).await?;
            self.remove_users(&claimed.changes).await?;
            self.publish(&claimed.changes).await?;
            // Only then remove the changes from the outbox.
            let (has_more, count) = (claimed.is_full(), claimed.changes.len());
            claimed.done().await?;
            self.metrics.changes_applied(count);
            if !has_more {
                return Ok(());
            }
        }
    }

    /// Removes the Redis users of tokens that have changed, and of those that come from them. Who
    /// may still publish asks for another one. If Redis fails here, the worker removes those of
    /// ended tokens some seconds later: other changes do not wait for that.
    async fn remove_users(&self, changes: &[AccessChange]) -> Result<(), StoreError> {
        let Some(users) = &self.run_users else {
            return Ok(());
        };
        let ids = |kind| {
            let changes = changes.iter().filter(move |change| change.kind == kind);
            changes.map(|change| change.id).collect::<Vec<_>>()
        };
        let (changed, parents) = (ids(ChangedSubject::Token), ids(ChangedSubject::User));
        if changed.is_empty() && parents.is_empty() {
            return Ok(());
        }
        let found = self.store.run_tokens_from(&changed, &parents).await?;
        let mut ended: Vec<RunUser> = found
            .into_iter()
            .map(|(run, token)| RunUser { run, token })
            .collect();
        // A token that was deleted does not say of which run it was; its user does.
        let hashes = changes
            .iter()
            .filter(|change| change.kind == ChangedSubject::Token)
            .filter_map(|change| change.hash.as_ref())
            .filter(|hash| ended.iter().all(|user| !user.is_of(hash)))
            .collect::<Vec<_>>();
        let removed = async {
            if !hashes.is_empty() {
                let listed = users.listed().await?;
                let deleted = listed.into_iter();
                ended.extend(deleted.filter(|user| hashes.iter().any(|hash| user.is_of(hash))));
            }
            users.remove(&ended).await
        };
        if let Err(error) = removed.await {
            debug!(%error, "cannot remove the Redis users of changed tokens now");
        }
        Ok(())
    }

    /// The key of the copy of what changed.
    fn key(&self, change: &AccessChange) -> Option<String> {
        match (change.kind, &change.hash) {
            (ChangedSubject::Token, Some(hash)) => Some(self.keys.token(hash)),
            (ChangedSubject::Session, Some(hash)) => Some(self.keys.session(hash)),
            (ChangedSubject::User, _) => Some(self.keys.permissions(change.id)),
            (_, None) => None,
        }
    }

    /// Publishes the changes to all gateways, as a list of `{kind, id}`: their
    /// [listeners](crate::revocations) close the streams that the changes affect.
    async fn publish(&self, changes: &[AccessChange]) -> Result<(), RedisFailure> {
        let text = match serde_json::to_string(changes) {
            Ok(text) => text,
            Err(failed) => {
                error!(
                    error = %failed,
                    "cannot encode changes of access; gateways are not notified"
                );
                return Ok(());
            }
        };
        let channel = self.keys.access_changes();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&channel).arg(text);
        self.redis
            .query::<u64>(Slot::of(&channel), &publish)
            .await?;
        Ok(())
    }
}
