//! The feed of the fleet: what changes about any run, for whoever watches them all.
//!
//! One subscription of the gateway to `updates`, and the last [`MOST`] of them for all who follow. An update may be lost on
//! its way, so where one may have been (the subscription broke, or a client comes back too late) a `gap` says so, and
//! the client asks for the list of runs again; Postgres holds everything that updates tell of.
//!
//! An id is `<boot>-<number>`, the boot being that of this gateway: it is resumed exactly as long as it is in memory here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use futures::Stream;
use redis::{PushKind, Value};
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

use runcast_access::open_streams::StreamRegistration;
use runcast_access::run_labels::RunVisibility;

use super::memory::{ShedSignal, TOO_LITTLE};
use crate::sse::{DRAINS, KEEP_ALIVE, KEEP_ALIVE_LINE, RETRY_LINE, retry_spread};

/// Updates that are kept for those who come back.
const MOST: usize = 4096;

/// How often a silent connection is asked whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// What came of late.
#[derive(Debug)]
pub struct Feed {
    redis: Redis,
    keys: Keys,
    /// Tells ids of this process from those of others.
    boot: u32,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    items: VecDeque<Item>,
    /// The number of the newest.
    newest: u64,
}

#[derive(Debug, Clone)]
enum Item {
    Update(Arc<RunUpdate>),
    /// Some may have been missed here.
    Gap,
}

impl Feed {
    /// Of this Redis. [`Feed::run`] must be running for anything to come.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys) -> Arc<Self> {
        Arc::new(Self {
            redis,
            keys,
            boot: rand::random(),
            kept: Mutex::default(),
            newest: watch::Sender::new(0),
        })
    }

    /// Listens until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut backoff = Backoff::for_connections();
        let listening = async {
            loop {
                let failed = self.listen(&mut backoff).await;
                let is_first = backoff.attempts() == 0;
                let wait = backoff.next_wait();
                match failed {
                    Err(error) if is_first => warn!(%error, ?wait, "no feed of updates for now"),
                    Err(error) => debug!(%error, ?wait, "still no feed of updates"),
                    Ok(()) => debug!(?wait, "the connection of the feed ended"),
                }
                sleep(wait).await;
            }
        };
        stop.run_until_cancelled(listening).await;
    }

    /// One connection, for as long as it lasts.
    async fn listen(&self, backoff: &mut Backoff) -> Result<(), RedisFailure> {
        let (mut connection, mut pushes) = self.redis.subscriber(Slot::of("")).await?;
        let mut subscribe = redis::cmd("SUBSCRIBE");
        subscribe.arg(self.keys.updates());
        let mut ask = async |command: &redis::Cmd| match timeout(
            REDIS_DEADLINE,
            command.query_async::<Value>(&mut connection),
        )
        .await
        {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.redis.failed(error)),
            Err(_elapsed) => Err(self.redis.silent(REDIS_DEADLINE)),
        };
        ask(&subscribe).await?;
        backoff.reset();
        // What was published until now nobody has heard.
        self.put([Item::Gap]);
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(push) if push.kind == PushKind::Message => self.take(&push.data),
                    Some(push) if push.kind == PushKind::Disconnection => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = sleep(PROBE_EVERY) => ask(&redis::cmd("PING")).await?,
            }
        }
    }

    fn take(&self, data: &[Value]) {
        let Some(Value::BulkString(message)) = data.get(1) else {
            return;
        };
        match serde_json::from_slice::<Vec<RunUpdate>>(message) {
            Ok(updates) => self.put(
                updates
                    .into_iter()
                    .map(|update| Item::Update(Arc::new(update))),
            ),
            Err(error) => {
                debug!(%error, "updates cannot be read");
                self.put([Item::Gap]);
            }
        }
    }

    fn put(&self, items: impl IntoIterator<Item = Item>) {
        let mut kept = self.lock();
        for item in items {
            kept.items.push_back(item);
            kept.newest += 1;
            if kept.items.len() > MOST {
                kept.items.pop_front();
            }
        }
        let newest = kept.newest;
        drop(kept);
        self.newest.send_replace(newest);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number that an id of this process stands for, if it is one and still known here.
    fn number(&self, id: &str) -> Option<u64> {
        let (boot, number) = id.split_once('-')?;
        let number = number.parse().ok()?;
        let kept = self.lock();
        let is_known = number <= kept.newest && number + kept.items.len() as u64 >= kept.newest;
        (boot.parse() == Ok(self.boot) && is_known).then_some(number)
    }

    /// What came behind a number, each with its own; the first is a gap if more than is known came.
    fn after(&self, number: u64) -> Vec<(u64, Item)> {
        let kept = self.lock();
        let oldest = kept.newest - kept.items.len() as u64;
        let numbered = (oldest + 1..).zip(kept.items.iter().cloned());
        let newer = numbered.filter(|(one, _)| *one > number);
        let gap = (number < oldest).then_some((oldest, Item::Gap));
        gap.into_iter().chain(newer).collect()
    }

    fn frame(&self, name: &str, data: &impl serde::Serialize, number: u64) -> Bytes {
        let data = serde_json::to_string(data).unwrap_or_else(|_impossible| "{}".to_owned());
        format!(
            "event: {name}\ndata: {data}\nid: {}-{number}\n\n",
            self.boot
        )
        .into()
    }

    fn gap(&self, number: u64) -> Bytes {
        let data = json!({"kind": "gap", "reason": "updates may have been missed: ask for the list of runs"});
        self.frame("gap", &data, number)
    }
}

/// The bytes of an SSE response: updates of the runs that are to be seen, from now on or from where the client was,
/// until the server drains, what it was opened by ends, it has to go for want of memory, or the client goes.
pub fn bytes(
    feed: Arc<Feed>,
    after: Option<String>,
    sight: RunVisibility,
    opened: StreamRegistration,
    mut shedding: ShedSignal,
    stop: CancellationToken,
) -> impl Stream<Item = Bytes> + Send {
    stream! {
        let mut newest = feed.newest.subscribe();
        yield Bytes::from_static(RETRY_LINE);
        let mut at = match after.as_deref().map(|id| feed.number(id)) {
            Some(Some(known)) => known,
            came => {
                let now = *newest.borrow();
                if came.is_some() {
                    yield feed.gap(now);
                }
                now
            }
        };
        yield feed.frame("ready", &json!({"kind": "ready"}), at);
        let mut keep_alive = Instant::now() + KEEP_ALIVE;
        let closing = |at, reason| {
            let closing = feed.frame("closing", &json!({"kind": "closing", "reason": reason}), at);
            Bytes::from([retry_spread().as_bytes(), &closing].concat())
        };
        loop {
            if shedding.has_to_go() {
                yield closing(at, TOO_LITTLE);
                return;
            }
            newest.mark_unchanged();
            for (number, item) in feed.after(at) {
                if opened.ending().is_some() {
                    break;
                }
                at = number;
                match item {
                    Item::Gap => yield feed.gap(number),
                    Item::Update(update) => match sight.sees(update.run).await {
                        Ok(true) => yield feed.frame("state", &*update, number),
                        Ok(false) => continue,
                        Err(error) => {
                            debug!(%error, "whether an update may be shown is not known");
                            yield feed.gap(number);
                        }
                    },
                }
                keep_alive = Instant::now() + KEEP_ALIVE;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    yield closing(at, DRAINS);
                    return;
                }
                ending = opened.ended() => {
                    yield closing(at, ending.reason());
                    return;
                }
                () = shedding.round() => {}
                changed = newest.changed() => if changed.is_err() { return },
                () = sleep_until(keep_alive) => {
                    keep_alive = Instant::now() + KEEP_ALIVE;
                    yield Bytes::from_static(KEEP_ALIVE_LINE);
                }
            }
        }
    }
}
