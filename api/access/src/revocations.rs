//! Each gateway hears what has changed about access, and ends what was [opened](super::open_streams) by it.
//!
//! What is heard only says what to look up: a change that takes nothing away ends nothing. A message may be lost with the
//! connection, so everything is looked up again when that is back, and every [`EVERY`] in any case, which is also how
//! an expiry is noticed. Nothing ends because a store does not answer: it is looked up again, every [`AGAIN`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use rand::RngExt as _;
use redis::{PushKind, Value};
use runcast_common::backoff::Backoff;
use runcast_common::connect::RedisFailure;
use runcast_common::protocol::keys::Slot;
use runcast_common::protocol::limits::REDIS_DEADLINE;
use runcast_common::redis;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::access::Access;
use super::open_streams::{Opening, Revocation};
use super::principal::Principal;
use crate::credential::Credential;
use crate::error::AccessError;
use runcast_store::access_outbox::AccessChange;

/// How often all that is open is looked up: it may have expired.
const EVERY: Duration = Duration::from_secs(30);

/// When something is looked up again that could not be.
const AGAIN: Duration = Duration::from_secs(1);

/// How often a silent connection is asked whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Credentials that are looked up at the same time.
const AT_A_TIME: usize = 16;

impl Access {
    /// Hears of changes until told to stop. It must run for anything that is open to end before its time.
    pub async fn hear_changes(self, stop: CancellationToken) {
        let working = async { tokio::join!(self.hear(), self.look_now_and_then()) };
        stop.run_until_cancelled(working).await;
    }

    async fn hear(&self) {
        let mut backoff = Backoff::for_connections();
        loop {
            let heard = self.hear_on_one_connection(&mut backoff).await;
            let is_first = backoff.attempts() == 0;
            let wait = backoff.next_wait();
            match heard {
                Err(error) if is_first => {
                    warn!(%error, ?wait, "changes of access reach open streams late for now");
                }
                Err(error) => debug!(%error, ?wait, "changes of access still come late"),
                Ok(()) => debug!(?wait, "the connection that tells of changes ended"),
            }
            sleep(wait).await;
        }
    }

    async fn hear_on_one_connection(&self, backoff: &mut Backoff) -> Result<(), RedisFailure> {
        let channel = self.keys().access_changes();
        let (mut connection, mut pushes) = self.redis().subscriber(Slot::of(&channel)).await?;
        let mut subscribe = redis::cmd("SUBSCRIBE");
        subscribe.arg(&channel);
        let mut ask = async |command: &redis::Cmd| match timeout(
            REDIS_DEADLINE,
            command.query_async::<Value>(&mut connection),
        )
        .await
        {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.redis().failed(error)),
            Err(_elapsed) => Err(self.redis().silent(REDIS_DEADLINE)),
        };
        ask(&subscribe).await?;
        backoff.reset();
        // What was told until now nobody has heard.
        self.look_up(self.openings().all()).await;
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::Message => self.take(&push.data).await,
                    Some(push) if push.kind == PushKind::Disconnection => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = sleep(PROBE_EVERY) => ask(&redis::cmd("PING")).await?,
            }
        }
    }

    async fn take(&self, data: &[Value]) {
        let Some(Value::BulkString(message)) = data.get(1) else {
            return;
        };
        let openings = match serde_json::from_slice::<Vec<AccessChange>>(message) {
            Ok(changes) => {
                let ids: HashSet<_> = changes.iter().map(|change| change.id).collect();
                self.openings().of(&ids)
            }
            Err(error) => {
                debug!(%error, "changes of access cannot be read");
                self.openings().all()
            }
        };
        self.look_up(openings).await;
    }

    async fn look_now_and_then(&self) {
        let mut next = Instant::now() + EVERY;
        loop {
            tokio::select! {
                () = self.openings().doubts() => {
                    if !self.look_up(self.openings().doubtful()).await {
                        sleep(AGAIN).await;
                    }
                }
                () = sleep_until(next) => {
                    self.look_up(self.openings().all()).await;
                    next = Instant::now() + EVERY.mul_f64(rand::rng().random_range(0.8..=1.0));
                }
            }
        }
    }

    /// Ends what was opened by a credential that is not what it was; false if some could not be looked up.
    async fn look_up(&self, openings: Vec<Arc<Opening>>) -> bool {
        // However many tickets were made by a credential, it is looked up once.
        let mut by_credential: HashMap<Credential, Vec<Arc<Opening>>> = HashMap::new();
        for opening in openings {
            let credential = opening.principal.basis().credential;
            by_credential.entry(credential).or_default().push(opening);
        }
        let looking = stream::iter(by_credential).map(|(credential, openings)| async move {
            match Principal::of(self, credential).await {
                Ok(now) => {
                    for opening in openings.iter().filter(|opening| !opening.is_still(&now)) {
                        opening.end(Revocation::Changed);
                    }
                    true
                }
                Err(AccessError::Unauthorized(_)) => {
                    openings
                        .iter()
                        .for_each(|opening| opening.end(Revocation::Over));
                    true
                }
                Err(_unknown) => {
                    openings.iter().for_each(|opening| opening.doubt());
                    false
                }
            }
        });
        let looked = looking.buffer_unordered(AT_A_TIME);
        looked.fold(true, async |all, one| all && one).await
    }
}
