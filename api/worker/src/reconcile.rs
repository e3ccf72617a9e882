//! Puts runs into the ready queue of which Redis holds more than Postgres: once their agents are
//! gone nothing else would queue them, and their keys would expire.
//!
//! Postgres loses stored events when it is restored to an older state. The worker that holds the
//! lease changes a mark in Postgres every [`INTERVAL`] and copies it to Redis, so a restored
//! database has another mark than Redis has seen. Then all runs in Redis are looked at; also when a
//! worker gets the lease, since services may have been down meanwhile, and after every failure:
//! where Postgres then lacks what Redis was told to be stored, it was restored as well.
//!
//! A run that was created after the state to which Postgres was restored exists in Redis alone. It
//! is created again, with its id and under another name, so that its events are stored.
//!
//! Redis is read before Postgres. So a run whose events are just being stored is not behind.
//!
//! Bounds: one step of `SCAN` at a time, with [`STEP_PAUSE`] between two of them;
//! [`MAX_CONCURRENT_CALLS`]; [`MAX_UNKNOWN_RUNS`] that are created again.

use std::collections::HashMap;
use std::time::Duration;

use chrono::DateTime;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use runcast_common::connect::Server;
use runcast_common::database_mark::{self, SeenMark};
use runcast_common::protocol::event_id::EventId;
use runcast_common::scripts::{EnqueueReason, enqueue};
use runcast_common::{key_scan, redis};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::error::TaskError;
use crate::worker::Worker;
use runcast_store::restored::DatabaseMark;

/// The name of the lease.
const LEASE_NAME: &str = "reconcile";

/// How often the mark is changed.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long the lease lasts if it is not renewed.
const LEASE_LIFE: Duration = Duration::from_secs(15);

/// Pause between two steps of a scan, so that other clients have Redis in between.
const STEP_PAUSE: Duration = Duration::from_millis(2);

/// Calls to Redis in progress at the same time.
const MAX_CONCURRENT_CALLS: usize = 32;

/// Runs that are created again after one restore.
const MAX_UNKNOWN_RUNS: usize = 100_000;

/// Runs that one transaction creates again.
const RECREATED_AT_ONCE: usize = 500;

/// By how much the clocks of gateways, which date runs, may lag behind that of Postgres.
const CLOCK_TOLERANCE_MS: i64 = 60_000;

/// Watches the mark until `stop`, whenever `owner`, an id of this process alone, holds the lease.
pub(crate) async fn watch_database(
    worker: &Worker,
    owner: Uuid,
    stop: &CancellationToken,
) -> Result<(), TaskError> {
    let mut held = None;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let lease = worker.store.take_lease(LEASE_NAME, owner, LEASE_LIFE);
        let Some(lease) = lease.await? else {
            held = None;
            continue;
        };
        let mark = change_mark(worker).await?;
        if held.is_none() || mark.expected.is_some() {
            reconcile(worker, &mark).await?;
        }
        // Last: after a failure the next round looks again.
        database_mark::set_seen(&worker.redis, &worker.keys, mark.new).await?;
        held = Some(lease);
    }
    if let Some(lease) = held {
        // A backup that was made since the last round has another mark than the database then.
        let mark = change_mark(worker).await?;
        if mark.expected.is_none() {
            database_mark::set_seen(&worker.redis, &worker.keys, mark.new).await?;
        }
        worker.store.release_lease(&lease).await?;
    }
    Ok(())
}

/// A change of the mark.
#[derive(Debug, Clone, Copy)]
struct MarkChange {
    /// The mark that Postgres had.
    found: DatabaseMark,
    /// The mark that it should have had, if that is another one.
    expected: Option<SeenMark>,
    /// The mark that it has now.
    new: SeenMark,
}

async fn change_mark(worker: &Worker) -> Result<MarkChange, TaskError> {
    let seen = database_mark::seen(&worker.redis, &worker.keys).await?;
    let (found, new) = worker.store.change_mark().await?;
    Ok(MarkChange {
        found,
        expected: seen.filter(|seen| seen.mark != found.mark),
        new: SeenMark {
            mark: new.mark,
            marked_ms: new.marked_ms,
        },
    })
}

/// What Redis says of a run.
#[derive(Debug, Clone, Copy)]
struct InRedis {
    last: EventId,
    /// What Postgres had stored when it was heard last.
    stored: Option<EventId>,
    /// The run is queued, or its agent will queue it.
    is_queued: bool,
}

/// What a look at all runs has found.
#[derive(Debug, Default)]
struct RunsBehind {
    /// Runs that were put into the queue.
    queued: u64,
    /// Those of them whose stored events Postgres has lost.
    lost: u64,
    /// Runs that only Redis knows.
    unknown: Vec<Uuid>,
}

/// Queues all runs of which Postgres lacks something.
async fn reconcile(worker: &Worker, mark: &MarkChange) -> Result<(), TaskError> {
    let mut found = RunsBehind::default();
    for server in worker.redis.masters().await? {
        look_at_server(worker, &server, &mut found).await?;
    }
    // A mark that is newer than the copy in Redis says that Redis is what has lost something.
    let from_ms = mark.found.marked_ms;
    let expected = mark
        .expected
        .filter(|expected| expected.marked_ms > from_ms);
    if expected.is_none() && found.lost == 0 {
        if found.queued > 0 {
            let runs = found.queued;
            info!(runs, "queued runs with events that nobody has stored");
        }
        return Ok(());
    }
    worker.metrics.count_restore();
    let recreated = recreate(worker, found.unknown, from_ms).await?;
    let to_ms = expected.map(|expected| expected.marked_ms);
    let (queued, lost) = (found.queued, found.lost);
    let time = |ms| DateTime::from_timestamp_millis(ms).map(|time| time.to_rfc3339());
    let (from, to) = (time(from_ms), to_ms.and_then(time));
    warn!(
        queued,
        lost,
        recreated,
        from,
        to,
        "Postgres lacks what it had stored: it was restored to an older state. Runs of which Redis \
         holds more are stored again. All other changes since then are undone: tokens that were \
         revoked and users that were disabled are valid again"
    );
    let noted = worker
        .store
        .note_restore(from_ms, to_ms, queued + recreated);
    Ok(noted.await?)
}

/// Creates the runs again that were created after a time, and queues them. Returns how many.
async fn recreate(worker: &Worker, unknown: Vec<Uuid>, after_ms: i64) -> Result<u64, TaskError> {
    let is_later = |run: &Uuid| {
        let created = created_ms(*run);
        created.is_some_and(|created| created + CLOCK_TOLERANCE_MS > after_ms)
    };
    let later: Vec<Uuid> = unknown.into_iter().filter(is_later).collect();
    let mut recreated = 0;
    for runs in later.chunks(RECREATED_AT_ONCE) {
        let created = worker.store.recreate_runs(runs).await?;
        recreated += created.len() as u64;
        queue_all(worker, &created).await?;
    }
    Ok(recreated)
}

/// Looks at the runs of one server.
async fn look_at_server(
    worker: &Worker,
    server: &Server,
    found: &mut RunsBehind,
) -> Result<(), TaskError> {
    let mut from = 0;
    loop {
        let step = key_scan::step(server, &worker.keys, from).await?;
        look_at_runs(worker, &step.runs, found).await?;
        from = step.next;
        if from == 0 {
            return Ok(());
        }
        tokio::time::sleep(STEP_PAUSE).await;
    }
}

async fn look_at_runs(
    worker: &Worker,
    runs: &[Uuid],
    found: &mut RunsBehind,
) -> Result<(), TaskError> {
    let reads = stream::iter(runs.iter().copied());
    let reads = reads.map(async |run| Ok::<_, TaskError>((run, read_run(worker, run).await?)));
    let reads = reads.buffer_unordered(MAX_CONCURRENT_CALLS);
    let in_redis: HashMap<Uuid, Option<InRedis>> = reads.try_collect().await?;
    let in_redis = in_redis.into_iter();
    let in_redis: Vec<(Uuid, InRedis)> =
        in_redis.filter_map(|(run, is)| Some((run, is?))).collect();
    if in_redis.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = in_redis.iter().map(|(run, _)| *run).collect();
    let states = worker.store.watermarks(&ids).await?;
    let mut behind = Vec::new();
    for (run, is) in in_redis {
        match states.get(&run) {
            Some(state) => {
                let has_lost = is
                    .stored
                    .is_some_and(|stored| stored > state.watermark && stored <= is.last);
                if has_lost || (is.last > state.watermark && !is.is_queued) {
                    behind.push(run);
                    found.lost += u64::from(has_lost);
                }
            }
            None if found.unknown.len() < MAX_UNKNOWN_RUNS => found.unknown.push(run),
            None => {}
        }
    }
    found.queued += behind.len() as u64;
    queue_all(worker, &behind).await
}

/// Reads what Redis says of a run; none if it holds no events of it, or the run was deleted.
async fn read_run(worker: &Worker, run: Uuid) -> Result<Option<InRedis>, TaskError> {
    let keys = worker.keys.run(run);
    let mut command = redis::cmd("HMGET");
    command.arg(&keys.meta);
    command.arg(&["epoch", "seq", "watermark", "dirty", "deleted"]);
    let read: Result<[Option<Vec<u8>>; 5], _> = worker.redis.query(keys.slot, &command).await;
    let fields = match read {
        Ok(fields) => fields.map(|field| String::from_utf8(field?).ok()),
        Err(error) if error.is_outage() => return Err(error.into()),
        Err(error) => {
            debug!(%error, %run, "cannot read the state of a run; a persister repairs it");
            return Ok(None);
        }
    };
    let [epoch, seq, stored, dirty, deleted] = fields;
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let (Some(epoch), Some(seq), None) = (number(epoch), number(seq), deleted) else {
        return Ok(None);
    };
    Ok((seq > 0).then_some(InRedis {
        last: EventId::new(epoch, seq),
        stored: stored.and_then(|text| text.parse().ok()),
        is_queued: dirty.is_some(),
    }))
}

async fn queue_all(worker: &Worker, runs: &[Uuid]) -> Result<(), TaskError> {
    let calls = stream::iter(runs.iter().copied()).map(async |run| {
        let keys = worker.keys.run(run);
        let queued = worker.redis.run(keys.slot, async |connection| {
            enqueue(&keys, EnqueueReason::Behind, connection).await
        });
        match queued.await {
            Err(error) if error.is_outage() => Err(error.into()),
            Err(error) => {
                debug!(%error, %run, "cannot queue a run");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    });
    calls
        .buffer_unordered(MAX_CONCURRENT_CALLS)
        .try_collect()
        .await
}

/// When a run was created, by the clock of the gateway that did it.
fn created_ms(run: Uuid) -> Option<i64> {
    let (seconds, nanos) = run.get_timestamp()?.to_unix();
    let seconds = i64::try_from(seconds).ok()?;
    Some(seconds * 1000 + i64::from(nanos / 1_000_000))
}
