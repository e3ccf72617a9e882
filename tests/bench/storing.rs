//! Shared by the sides of the persister's benchmark: runs, full streams, and a persister at work.

use std::time::{Duration, Instant};

use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::event::Kind;
use runcast_common::scripts::{Append, AppendAs, AppendOutcome, Cap};
use runcast_tests::process::Process;
use runcast_tests::stack::{Service, Stack};
use sqlx::{Executor as _, PgConnection};
use uuid::Uuid;

use crate::measure::{self, cpu};

/// Longest wait for one round.
pub(crate) const ROUND_DEADLINE: Duration = Duration::from_secs(120);

/// Concurrent appends while streams are filled.
const CONCURRENT_APPENDS: usize = 64;

/// Pauses between two checks of what is stored: when nearly all is, and otherwise.
const SHORT_POLL: Duration = Duration::from_millis(10);
const LONG_POLL: Duration = Duration::from_millis(300);

/// The number of runs, and the events of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) runs: usize,
    pub(crate) entries: usize,
    pub(crate) events: usize,
}

impl Load {
    pub(crate) const fn total(self) -> usize {
        self.runs * self.entries * self.events
    }
}

/// Creates runs as the gateway does, but directly in Postgres.
pub(crate) async fn create_runs(connection: &mut PgConnection, count: usize) -> Vec<Uuid> {
    let runs: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    let created = sqlx::query(
        "INSERT INTO runs (id, name, created_by) SELECT id, 'bench', 'bench' FROM unnest($1::uuid[]) AS id",
    )
    .bind(&runs);
    created.execute(connection).await.expect("runs");
    runs
}

/// A checkpoint, so that no side pays for another's dirty pages.
pub(crate) async fn checkpoint(connection: &mut PgConnection) {
    for statement in ["VACUUM runs", "VACUUM producers", "CHECKPOINT"] {
        let done = connection.execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Fills the stream of each run, by one producer each, one entry of every run in turn.
pub(crate) async fn fill(stack: &Stack, runs: &[Uuid], load: Load) {
    let mut connection = stack.redis.connection().await;
    let texts = measure::texts();
    let lines = texts.iter().map(|text| measure::line(Kind::Output, text));
    let body: Vec<u8> = lines.take(load.events).flatten().collect();
    let loaded = runcast_common::scripts::load_append(&mut connection).await;
    loaded.expect("the append script");
    for first in (1..).step_by(load.events).take(load.entries) {
        for group in runs.chunks(CONCURRENT_APPENDS) {
            let mut pipeline = redis::pipe();
            for &run in group {
                let append = Append {
                    // The run's id serves as its producer's id.
                    producer: run,
                    producer_epoch: 1,
                    base: 0,
                    acked: 0,
                    first,
                    count: load.events as u64,
                    body: Body::compress(&body),
                    cap: Cap::default(),
                };
                pipeline.add_command(append.command(&stack.keys().run(run), AppendAs::Service));
            }
            let replies: Vec<redis::Value> = pipeline
                .query_async(&mut connection)
                .await
                .expect("answers");
            for reply in replies {
                let appended = runcast_common::scripts::AppendReply::parse(reply);
                let outcome = appended.expect("a response").outcome;
                assert!(
                    matches!(outcome, AppendOutcome::Stored { .. }),
                    "{outcome:?}"
                );
            }
        }
    }
}

/// Appends one event to a run that [`fill`] has started with one; it is the producer's `number`th
/// further event.
pub(crate) async fn append_one(stack: &Stack, run: Uuid, number: u64) {
    let mut connection = stack.redis.connection().await;
    let append = Append {
        producer: run,
        producer_epoch: 1,
        base: 0,
        acked: 0,
        first: number + 1,
        count: 1,
        body: Body::Plain(&measure::line(Kind::Output, "now\n")),
        cap: Cap::default(),
    };
    let appended = append
        .call(&stack.keys().run(run), AppendAs::Service, &mut connection)
        .await;
    let outcome = appended.expect("a response").outcome;
    assert!(
        matches!(outcome, AppendOutcome::Stored { .. }),
        "{outcome:?}"
    );
}

/// As [`holds`], for one run, checked every millisecond.
pub(crate) async fn wait_stored_exactly(
    connection: &mut PgConnection,
    run: Uuid,
    events: usize,
    start: Instant,
) {
    let statement = "SELECT events FROM runs WHERE id = $1";
    loop {
        let stored = sqlx::query_scalar::<_, i64>(statement).bind(run);
        let stored = stored.fetch_one(&mut *connection).await.expect("a run");
        if usize::try_from(stored).is_ok_and(|stored| stored >= events) {
            return;
        }
        assert!(
            start.elapsed() < ROUND_DEADLINE,
            "{stored} of {events} stored"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One round of the persister.
pub(crate) struct Stored {
    pub(crate) all: Duration,
    pub(crate) ready: Duration,
    /// CPU time of the persister.
    pub(crate) own: Duration,
    /// CPU time of Redis.
    pub(crate) redis: Duration,
}

/// Starts a persister and waits until it has stored this many events of these runs.
pub(crate) async fn persist(
    stack: &Stack,
    connection: &mut PgConnection,
    runs: &[Uuid],
    events: usize,
) -> (Process, Stored) {
    let redis = redis_cpu(stack).await;
    let start = Instant::now();
    let spec = stack.service_spec(Service::Persister);
    let mut persister = spec.start(stack.folder());
    persister
        .wait_for_line("Runcast persister is ready", ROUND_DEADLINE)
        .await;
    let ready = start.elapsed();
    holds(connection, runs, events, start).await;
    let (all, own) = (start.elapsed(), cpu(persister.id()));
    let redis = redis_cpu(stack).await.saturating_sub(redis);
    let stored = Stored {
        all,
        ready,
        own,
        redis,
    };
    (persister, stored)
}

/// Waits until the watermarks of these runs add up to this many events. It checks more often near
/// the end: adding up 10,000 runs again and again would cost Postgres as much as the measured work.
pub(crate) async fn holds(
    connection: &mut PgConnection,
    runs: &[Uuid],
    events: usize,
    start: Instant,
) {
    loop {
        let statement = "SELECT coalesce(sum(events), 0)::bigint FROM runs WHERE id = ANY($1)";
        let stored: i64 = sqlx::query_scalar(statement)
            .bind(runs)
            .fetch_one(&mut *connection)
            .await
            .expect("the watermarks");
        if usize::try_from(stored).is_ok_and(|stored| stored >= events) {
            return;
        }
        assert!(
            start.elapsed() < ROUND_DEADLINE,
            "{stored} of {events} stored"
        );
        let left = 1.0 - stored as f64 / events as f64;
        let wait = start.elapsed().mul_f64(left / 4.0);
        tokio::time::sleep(wait.clamp(SHORT_POLL, LONG_POLL)).await;
    }
}

/// CPU time of Redis.
pub(crate) async fn redis_cpu(stack: &Stack) -> Duration {
    let info = info(stack, "cpu").await;
    let seconds = field(&info, "used_cpu_user") + field(&info, "used_cpu_sys");
    Duration::from_secs_f64(seconds)
}

/// Memory of Redis in bytes.
pub(crate) async fn redis_memory(stack: &Stack) -> f64 {
    field(&info(stack, "memory").await, "used_memory")
}

async fn info(stack: &Stack, section: &str) -> String {
    let mut connection = stack.redis.connection().await;
    let mut command = redis::cmd("INFO");
    command.arg(section);
    let info = command.query_async(&mut connection).await;
    info.expect("the INFO reply of Redis")
}

fn field(info: &str, name: &str) -> f64 {
    let mut lines = info.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.unwrap_or_else(|| panic!("no {name} in {info}"));
    value.trim().parse().expect("a number")
}
