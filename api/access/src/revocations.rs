//! [`RevocationListener`]: listens for access changes and closes the
//! [streams](crate::open_streams) that they affect.
//!
//! A message only names what to look up again: a change that takes no rights away closes no stream.
//! Messages may be lost with the connection. So everything is looked up again after a reconnect,
//! and every [`RECHECK_INTERVAL`] in any case, which is also how an expiry is noticed. No stream
//! closes because a store does not answer: its credential is looked up again every
//! [`RETRY_INTERVAL`].

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
use runcast_store::access_outbox::AccessChange;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Access;
use crate::credential::Credential;
use crate::error::AccessError;
use crate::open_streams::{OpenStreams, Revocation, StreamGroup};
use crate::principal::Principal;

/// How often all open streams are looked up again: their credentials may have expired.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The wait before a failed look-up is repeated.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How often a silent connection is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Credentials that are looked up at the same time.
const MAX_CONCURRENT_LOOKUPS: usize = 16;

/// Closes the streams of one process.
#[derive(Debug)]
pub struct RevocationListener {
    access: Access,
}

impl RevocationListener {
    /// A listener over the open streams of this access.
    #[must_use]
    pub const fn new(access: Access) -> Self {
        Self { access }
    }

    /// Listens until `stop`. It must run for any stream to end with its credential.
    pub async fn run(&self, stop: CancellationToken) {
        let working = async { tokio::join!(self.listen(), self.recheck_periodically()) };
        stop.run_until_cancelled(working).await;
    }

    fn open_streams(&self) -> &OpenStreams {
        self.access.open_streams()
    }

    async fn listen(&self) {
        let mut backoff = Backoff::for_connections();
        loop {
            let ended = self.listen_on_one_connection(&mut backoff).await;
            let is_first = backoff.attempts() == 0;
            let wait = backoff.next_wait();
            match ended {
                Err(error) if is_first => {
                    warn!(
                        %error, ?wait,
                        "cannot listen for changes of access; streams close late until reconnected"
                    );
                }
                Err(error) => debug!(%error, ?wait, "still cannot listen for changes of access"),
                Ok(()) => debug!(?wait, "the connection that reports changes of access ended"),
            }
            sleep(wait).await;
        }
    }

    async fn listen_on_one_connection(&self, backoff: &mut Backoff) -> Result<(), RedisFailure> {
        // Subscribe.
        let (redis, channel) = (self.access.redis(), self.access.keys().access_changes());
        let (mut connection, mut pushes) = redis.subscriber(Slot::of(&channel)).await?;
        let mut subscribe = redis::cmd("SUBSCRIBE");
        subscribe.arg(&channel);
        let mut send = async |command: &redis::Cmd| match timeout(
            REDIS_DEADLINE,
            command.query_async::<Value>(&mut connection),
        )
        .await
        {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(redis.failed(error)),
            Err(_elapsed) => Err(redis.timed_out(REDIS_DEADLINE)),
        };
        send(&subscribe).await?;
        backoff.reset();
        // Changes that were published before the subscription were missed.
        self.recheck(self.open_streams().all()).await;
        // Receive changes, and probe the connection while there are none.
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::Message => self.receive(&push.data).await,
                    Some(push) if push.kind == PushKind::Disconnection => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = sleep(PROBE_INTERVAL) => send(&redis::cmd("PING")).await?,
            }
        }
    }

    async fn receive(&self, data: &[Value]) {
        let Some(Value::BulkString(message)) = data.get(1) else {
            return;
        };
        let groups = match serde_json::from_slice::<Vec<AccessChange>>(message) {
            Ok(changes) => {
                let ids: HashSet<_> = changes.iter().map(|change| change.id).collect();
                self.open_streams().affected_by(&ids)
            }
            Err(error) => {
                debug!(%error, "cannot decode changes of access; looking up all open streams");
                self.open_streams().all()
            }
        };
        self.recheck(groups).await;
    }

    async fn recheck_periodically(&self) {
        let mut next = Instant::now() + RECHECK_INTERVAL;
        loop {
            tokio::select! {
                () = self.open_streams().recheck_requested() => {
                    if !self.recheck(self.open_streams().take_rechecks()).await {
                        sleep(RETRY_INTERVAL).await;
                    }
                }
                () = sleep_until(next) => {
                    self.recheck(self.open_streams().all()).await;
                    let jitter = rand::rng().random_range(0.8..=1.0);
                    next = Instant::now() + RECHECK_INTERVAL.mul_f64(jitter);
                }
            }
        }
    }

    /// Closes the streams whose credential has lost or changed its rights. Returns false if some
    /// credentials could not be looked up; those are looked up again.
    async fn recheck(&self, groups: Vec<Arc<StreamGroup>>) -> bool {
        // One look-up for each credential, however many tickets it created.
        let mut by_credential: HashMap<Credential, Vec<Arc<StreamGroup>>> = HashMap::new();
        for group in groups {
            let credential = group.principal.auth_source().credential;
            by_credential.entry(credential).or_default().push(group);
        }
        let lookups = stream::iter(by_credential).map(|(credential, groups)| async move {
            match Principal::of(&self.access, credential).await {
                Ok(now) => {
                    for group in groups.iter().filter(|group| !group.is_unchanged(&now)) {
                        group.revoke(Revocation::Changed);
                    }
                    true
                }
                Err(AccessError::Unauthorized(_)) => {
                    groups
                        .iter()
                        .for_each(|group| group.revoke(Revocation::Ended));
                    true
                }
                Err(_unknown) => {
                    groups.iter().for_each(|group| group.request_recheck());
                    false
                }
            }
        });
        let outcomes = lookups.buffer_unordered(MAX_CONCURRENT_LOOKUPS);
        outcomes.fold(true, async |all, one| all && one).await
    }
}
