//! Changes of access reach Redis: the copies of what has changed are deleted, and all gateways are told.
//!
//! Postgres keeps a list of changes, filled by triggers in the transaction of each change, whoever makes it: a gateway,
//! the command line, or somebody with `psql`. A gateway that makes one works the list off before it answers
//! ([`Access::settle`]), so that whoever is told "revoked" can rely on it, at every gateway. For all others each gateway
//! has a task: Postgres wakes it, and every [`EVERY`] it looks by itself, since a wake-up may be lost. While Redis does not
//! answer the list waits, and gateways that cannot reach Redis read Postgres anyway.

use std::time::Duration;

use rand::RngExt as _;
use runcast_common::backoff::Backoff;
use runcast_common::connect::RedisFailure;
use runcast_common::protocol::keys::Slot;
use runcast_common::redis;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::access::Access;
use runcast_store::StoreError;
use runcast_store::access_outbox::{AccessChange, ChangedSubject};

/// Between two looks at the list, more or less.
const EVERY: Duration = Duration::from_secs(2);

/// Longest time that an answer waits for Redis to be told.
const SETTLE: Duration = Duration::from_secs(2);

/// Why the list was not worked off.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// Postgres could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis could not be told.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// There is more than is done in one transaction.
    #[error("the changes of access could not be told within {SETTLE:?}")]
    Late,
}

impl Access {
    /// Works off what has changed until now, this process's own change among it. What remains, if Redis does not answer,
    /// is worked off later: the change itself is in Postgres, and stays.
    pub async fn settle(&self) {
        match self.work_off_in_time().await {
            Ok(()) => {}
            Err(error) => {
                warn!(%error, "a change of access is stored; copies in Redis learn of it later");
            }
        }
    }

    /// Works the list off whenever there is something in it, until told to stop.
    pub async fn tell_changes(self, stop: CancellationToken) {
        let mut backoff = Backoff::for_connections();
        let mut well = true;
        let telling = async {
            loop {
                match self.listen(&mut backoff, &mut well).await {
                    Ok(()) => debug!("the connection that tells of changes of access ended"),
                    Err(error) if backoff.attempts() == 0 => {
                        warn!(%error, "changes of access are looked for, not told, for now");
                    }
                    Err(error) => debug!(%error, "changes of access are still not told"),
                }
                self.look(&mut well).await;
                sleep(backoff.next_wait()).await;
            }
        };
        stop.run_until_cancelled(telling).await;
    }

    /// One connection to Postgres, for as long as it lasts.
    async fn listen(&self, backoff: &mut Backoff, well: &mut bool) -> Result<(), StoreError> {
        let mut listener = self.store().access_change_listener().await?;
        backoff.reset();
        loop {
            // Looked after listening began, so that nothing comes in between.
            self.look(well).await;
            let next = Instant::now() + EVERY.mul_f64(rand::rng().random_range(0.8..=1.2));
            tokio::select! {
                told = listener.try_recv() => match told {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error.into()),
                },
                () = sleep_until(next) => {}
            }
        }
    }

    /// Works the list off; says once that it cannot.
    async fn look(&self, well: &mut bool) {
        let outcome = self.work_off_in_time().await;
        match (&outcome, *well) {
            (Ok(()), _) => {}
            (Err(error), true) => warn!(%error, "changes of access wait until Redis can be told"),
            (Err(error), false) => debug!(%error, "changes of access still wait"),
        }
        *well = outcome.is_ok();
    }

    async fn work_off_in_time(&self) -> Result<(), ChangesError> {
        let worked = timeout(SETTLE, self.work_off()).await;
        worked.unwrap_or(Err(ChangesError::Late))
    }

    async fn work_off(&self) -> Result<(), ChangesError> {
        // Others wait for what is taken here, and a gateway for which Redis is away has nothing to do with it.
        loop {
            let taken = self.store().take_access_changes().await?;
            if taken.changes.is_empty() {
                return Ok(());
            }
            let keys: Vec<String> = taken
                .changes
                .iter()
                .filter_map(|change| self.key(change))
                .collect();
            self.mirror().delete(&keys).await?;
            self.announce(&taken.changes).await?;
            let (more, count) = (taken.is_full(), taken.changes.len());
            taken.done().await?;
            self.meter().told(count);
            if !more {
                return Ok(());
            }
        }
    }

    /// Where the copy of what changed lies.
    fn key(&self, change: &AccessChange) -> Option<String> {
        match (change.kind, &change.hash) {
            (ChangedSubject::Token, Some(hash)) => Some(self.keys().token(hash)),
            (ChangedSubject::Session, Some(hash)) => Some(self.keys().session(hash)),
            (ChangedSubject::User, _) => Some(self.keys().permissions(change.id)),
            (_, None) => None,
        }
    }

    /// Tells all gateways, as a list of `{kind, id}`, for what is open by what has changed.
    async fn announce(&self, changes: &[AccessChange]) -> Result<(), RedisFailure> {
        let text = match serde_json::to_string(changes) {
            Ok(text) => text,
            Err(failed) => {
                error!(error = %failed, "changes of access cannot be told");
                return Ok(());
            }
        };
        let channel = self.keys().access_changes();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&channel).arg(text);
        self.redis()
            .query::<u64>(Slot::of(&channel), &publish)
            .await?;
        Ok(())
    }
}
