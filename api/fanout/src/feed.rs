//! The feed: status changes of all runs, for viewers that watch all of them.
//!
//! The gateway subscribes to the Redis channel `updates` once, and keeps the last [`MAX_UPDATES`]
//! for all viewers. Pub/sub may lose an update. Where one may have been lost (the subscription
//! broke, or a client reconnects too late) the feed sends a `gap`, and the client reloads the list
//! of runs: Postgres holds everything that updates carry.
//!
//! An id is `<boot>-<number>`, where `boot` stands for this gateway process. A client resumes
//! exactly as long as this process keeps the updates after its id.
//!
//! Time: a silent subscription is probed every [`PING_INTERVAL`]; a keep-alive goes out after
//! [`KEEP_ALIVE`] of silence.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use futures::Stream;
use redis::{PushKind, Value};
use runcast_access::open_streams::StreamRegistration;
use runcast_access::run_labels::RunVisibility;
use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::presence::run_update::RunUpdate;
use runcast_common::protocol::keys::{Keys, Slot};
use runcast_common::protocol::limits::REDIS_DEADLINE;
use runcast_common::redis;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::frame::frame;
use crate::memory::{SHED_REASON, ShedSignal};
use crate::sse::{DRAIN_REASON, KEEP_ALIVE, KEEP_ALIVE_LINE, RETRY_LINE, retry_spread};

/// Updates that are kept for clients that reconnect.
const MAX_UPDATES: usize = 4096;

/// How often a silent connection is probed.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The subscription to `updates`, and the last of them.
#[derive(Debug)]
pub struct Feed {
    redis: Redis,
    keys: Keys,
    /// Distinguishes ids of this process from those of others.
    boot: u32,
    recent: Mutex<Recent>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Recent {
    items: VecDeque<Item>,
    /// The number of the newest item.
    newest: u64,
}

#[derive(Debug, Clone)]
enum Item {
    Update(Arc<RunUpdate>),
    /// Updates may have been lost here.
    Gap,
}

impl Feed {
    /// The feed of this Redis. [`Feed::run`] must run for updates to arrive.
    pub fn new(redis: Redis, keys: Keys) -> Arc<Self> {
        Arc::new(Self {
            redis,
            keys,
            boot: rand::random(),
            recent: Mutex::default(),
            newest: watch::Sender::new(0),
        })
    }

    /// Keeps the subscription until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut backoff = Backoff::for_connections();
        let subscribed = async {
            loop {
                let ended = self.subscribe(&mut backoff).await;
                let is_first = backoff.attempts() == 0;
                let wait = backoff.next_wait();
                match ended {
                    Err(error) if is_first => {
                        warn!(%error, ?wait, "cannot subscribe to the feed of updates; retrying");
                    }
                    Err(error) => {
                        debug!(%error, ?wait, "still cannot subscribe to the feed of updates");
                    }
                    Ok(()) => debug!(?wait, "the connection of the feed ended; reconnecting"),
                }
                sleep(wait).await;
            }
        };
        stop.run_until_cancelled(subscribed).await;
    }

    /// One connection, for as long as it lasts.
    async fn subscribe(&self, backoff: &mut Backoff) -> Result<(), RedisFailure> {
        let (mut connection, mut pushes) = self.redis.subscriber(Slot::of("")).await?;
        let mut subscribe = redis::cmd("SUBSCRIBE");
        subscribe.arg(self.keys.updates());
        let mut send = async |command: &redis::Cmd| match timeout(
            REDIS_DEADLINE,
            command.query_async::<Value>(&mut connection),
        )
        .await
        {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.redis.failed(error)),
            Err(_elapsed) => Err(self.redis.timed_out(REDIS_DEADLINE)),
        };
        send(&subscribe).await?;
        backoff.reset();
        // What was published before the subscription did not arrive.
        self.push([Item::Gap]);
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::Message => self.on_message(&push.data),
                    Some(push) if push.kind == PushKind::Disconnection => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = sleep(PING_INTERVAL) => send(&redis::cmd("PING")).await?,
            }
        }
    }

    fn on_message(&self, data: &[Value]) {
        let Some(Value::BulkString(message)) = data.get(1) else {
            return;
        };
        match serde_json::from_slice::<Vec<RunUpdate>>(message) {
            Ok(updates) => self.push(
                updates
                    .into_iter()
                    .map(|update| Item::Update(Arc::new(update))),
            ),
            Err(error) => {
                debug!(%error, "ignored unreadable updates");
                self.push([Item::Gap]);
            }
        }
    }

    fn push(&self, items: impl IntoIterator<Item = Item>) {
        let mut recent = self.lock();
        for item in items {
            recent.items.push_back(item);
            recent.newest += 1;
            if recent.items.len() > MAX_UPDATES {
                recent.items.pop_front();
            }
        }
        let newest = recent.newest;
        drop(recent);
        self.newest.send_replace(newest);
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number in an id of this process, if all updates after it are still kept.
    fn number(&self, id: &str) -> Option<u64> {
        let (boot, number) = id.split_once('-')?;
        let number = number.parse().ok()?;
        let recent = self.lock();
        let is_kept =
            number <= recent.newest && number + recent.items.len() as u64 >= recent.newest;
        (boot.parse() == Ok(self.boot) && is_kept).then_some(number)
    }

    /// The items after a number, each with its own. The first is a gap if some are no longer kept.
    fn after(&self, number: u64) -> Vec<(u64, Item)> {
        let recent = self.lock();
        let evicted = recent.newest - recent.items.len() as u64;
        let numbered = (evicted + 1..).zip(recent.items.iter().cloned());
        let newer = numbered.filter(|(one, _)| *one > number);
        let gap = (number < evicted).then_some((evicted, Item::Gap));
        gap.into_iter().chain(newer).collect()
    }

    fn frame(&self, name: &str, data: &impl serde::Serialize, number: u64) -> Bytes {
        frame(name, data, format_args!("{}-{number}", self.boot))
    }

    fn gap(&self, number: u64) -> Bytes {
        let data = json!({"kind": "gap", "reason": "updates may have been missed: ask for the list of runs"});
        self.frame("gap", &data, number)
    }

    fn closing(&self, reason: &str, number: u64) -> Bytes {
        let data = json!({"kind": "closing", "reason": reason});
        let frame = self.frame("closing", &data, number);
        [retry_spread().as_bytes(), &frame].concat().into()
    }
}

/// The body of an SSE response: updates of the runs that `visibility` admits, from now on or from
/// the client's last id. It ends when the server drains, the viewer's credential is revoked, memory
/// runs short, or the client leaves.
pub fn feed_body(
    feed: Arc<Feed>,
    after: Option<String>,
    visibility: RunVisibility,
    opened: StreamRegistration,
    mut shedding: ShedSignal,
    stop: CancellationToken,
) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let mut newest = feed.newest.subscribe();
        yield Bytes::from_static(RETRY_LINE);
        let mut cursor = match after.as_deref().map(|id| feed.number(id)) {
            Some(Some(number)) => number,
            unknown => {
                let now = *newest.borrow();
                if unknown.is_some() {
                    yield feed.gap(now);
                }
                now
            }
        };
        yield feed.frame("ready", &json!({"kind": "ready"}), cursor);
        let mut keep_alive = Instant::now() + KEEP_ALIVE;
        loop {
            if shedding.should_close() {
                yield feed.closing(SHED_REASON, cursor);
                return;
            }
            // Before `after`, so that no update in between is missed.
            newest.mark_unchanged();
            for (number, item) in feed.after(cursor) {
                if opened.revocation().is_some() {
                    break;
                }
                cursor = number;
                match item {
                    Item::Gap => yield feed.gap(number),
                    Item::Update(update) => match visibility.sees(update.run).await {
                        Ok(true) => yield feed.frame("state", &*update, number),
                        Ok(false) => continue,
                        Err(error) => {
                            debug!(%error, "cannot check who may see an update; sending a gap");
                            yield feed.gap(number);
                        }
                    },
                }
                keep_alive = Instant::now() + KEEP_ALIVE;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    yield feed.closing(DRAIN_REASON, cursor);
                    return;
                }
                ending = opened.revoked() => {
                    yield feed.closing(ending.reason(), cursor);
                    return;
                }
                () = shedding.next_round() => {}
                changed = newest.changed() => if changed.is_err() { return },
                () = sleep_until(keep_alive) => {
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    yield Bytes::from_static(KEEP_ALIVE_LINE);
                }
            }
        }
    }
}
