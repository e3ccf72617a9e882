//! Events/s from Redis to committed rows: a real persister, compared with the minimum that any
//! persister needs, and with the usual way to write one.
//!
//! - **throughput**: 100 runs are filled through the append script, in entries of 512 events of 200
//!   B, before `runcastd persister` starts. The time is from its start until the watermarks of all
//!   runs in Postgres are at the end. The raw side: as many rows of as many other runs of the same
//!   database are in memory, in Postgres' binary format; a loop on one connection locks watermarks,
//!   COPYs 5,000 rows and moves the watermarks until all are committed, once with 500 rows of each
//!   of ten runs per transaction, once with 5,000 of one. The third side is `insert.rs`. All take
//!   turns, several times, each after a checkpoint.
//! - **spread**: the same 10,000 entries of 51 events, in 10, 100, 1,000 and 10,000 runs.
//! - **latency**: one event after the other in ten quiet runs, from the call of the append script
//!   until a query, repeated every millisecond, finds the watermark of its run moved.
//! - **idle**: 10,000 open runs with all events stored: what they cost in CPU time and Redis
//!   memory.
//!
//! The private Postgres of the stories runs with `fsync=off`: no side includes what the disk adds
//! to a commit. **synced** repeats throughput with `fsync=on` and full pages, as in production.

mod insert;
mod measure;
mod raw;
mod storing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use runcast_common::protocol::limits::MAX_ENTRY_EVENTS;
use runcast_tests::postgres::{Durability, PostgresServer};
use runcast_tests::stack::{Service, Stack};
use sqlx::{Connection as _, PgConnection};

use self::measure::{EVENT_BYTES, cpu, median, quantile, say, spread};
use self::storing::{
    Load, append_one, checkpoint, create_runs, fill, persist, redis_cpu, redis_memory,
    wait_stored_exactly,
};

const ROUND_COUNT: usize = 5;

/// How long idle runs are measured.
const IDLE_PERIOD: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() {
    let parts: Vec<String> = std::env::args()
        .skip(1)
        .filter(|one| !one.starts_with("--"))
        .collect();
    for part in ["throughput", "synced", "spread", "latency", "idle"] {
        if !parts.is_empty() && !parts.iter().any(|one| one == part) {
            continue;
        }
        let mut stack = if part == "synced" {
            Stack::with_postgres(Arc::new(PostgresServer::start(Durability::Fsync).await)).await
        } else {
            Stack::without_services().await
        };
        stack.start_service(Service::Gateway).await;
        let url = stack.database_url(stack.database_port());
        let mut connection = PgConnection::connect(&url).await.expect("a connection");
        match part {
            "throughput" => throughput(&stack, &mut connection, "fsync=off").await,
            "synced" => throughput(&stack, &mut connection, "fsync=on").await,
            "spread" => over_runs(&stack, &mut connection).await,
            "latency" => latency(&stack, &mut connection).await,
            _ => idle(&stack, &mut connection).await,
        }
    }
}

async fn throughput(stack: &Stack, connection: &mut PgConnection, disk: &str) {
    let load = Load {
        runs: 100,
        entries: 10,
        events: MAX_ENTRY_EVENTS,
    };
    let per_second = |seconds: f64| load.total() as f64 / seconds / 1e3;
    let (mut ten, mut one, mut real, mut usual) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut ready, mut own_us, mut redis_us) = (Vec::new(), Vec::new(), Vec::new());
    // The first round of each is a warm-up of files and caches.
    for round in 0..=ROUND_COUNT {
        let mut raw = [0.0; 2];
        for (figure, at_once) in raw.iter_mut().zip([10, 1]) {
            let runs = create_runs(connection, load.runs).await;
            checkpoint(connection).await;
            let events = load.entries * load.events;
            *figure = per_second(raw::store(connection, &runs, events, at_once).await);
        }

        let runs = create_runs(connection, load.runs).await;
        fill(stack, &runs, load).await;
        checkpoint(connection).await;
        let (mut persister, stored) = persist(stack, connection, &runs, load.total()).await;
        persister.kill();

        let runs = create_runs(connection, load.runs).await;
        fill(stack, &runs, load).await;
        checkpoint(connection).await;
        let inserted = insert::store(stack, connection, &runs).await;
        forget(stack).await;
        if round > 0 {
            ten.push(raw[0]);
            one.push(raw[1]);
            real.push(per_second(stored.all.as_secs_f64()));
            usual.push(per_second(inserted));
            ready.push(stored.ready.as_secs_f64() * 1e3);
            own_us.push(stored.own.as_secs_f64() * 1e6 / load.total() as f64);
            redis_us.push(stored.redis.as_secs_f64() * 1e6 / load.total() as f64);
        }
    }
    say(format_args!(
        "\nPersister: {} events of {EVENT_BYTES} B in {} runs a round, {ROUND_COUNT} rounds in turn, {disk}, median (least .. most)\n\n\
         | | thousand events/s | ratio to raw, ten runs | ratio to raw, one run | CPU us/event | of Redis | start until ready, ms |\n\
         |---|---|---|---|---|---|---|\n\
         | raw, ten runs a transaction | {} | 1.00 | | | | |\n\
         | raw, one run a transaction | {} | | 1.00 | | | |\n\
         | runcastd persister, from its start | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |\n\
         | XREADGROUP per run, INSERT UNNEST | {} | {:.2} | {:.2} | | | |",
        load.total(),
        load.runs,
        spread(&ten, 0),
        spread(&one, 0),
        spread(&real, 0),
        ratio(&real, &ten),
        ratio(&real, &one),
        median(&own_us),
        median(&redis_us),
        median(&ready),
        spread(&usual, 0),
        ratio(&usual, &ten),
        ratio(&usual, &one),
    ));
}

/// Empties Redis: unsettled runs would wait for the next persister.
async fn forget(stack: &Stack) {
    let mut connection = stack.redis.connection().await;
    let flush = redis::cmd("FLUSHALL");
    let () = flush
        .query_async(&mut connection)
        .await
        .expect("a response");
}

async fn over_runs(stack: &Stack, connection: &mut PgConnection) {
    const ENTRY_COUNT: usize = 10_000;
    const EVENTS_EACH: usize = 51;
    const RUN_COUNTS: [usize; 4] = [10, 100, 1_000, 10_000];
    let mut figures = [const { (Vec::new(), Vec::new(), Vec::new()) }; RUN_COUNTS.len()];
    for round in 0..=ROUND_COUNT {
        for (runs, (rate, own, redis)) in RUN_COUNTS.into_iter().zip(&mut figures) {
            let load = Load {
                runs,
                entries: ENTRY_COUNT / runs,
                events: EVENTS_EACH,
            };
            let runs = create_runs(connection, runs).await;
            fill(stack, &runs, load).await;
            checkpoint(connection).await;
            let (mut persister, stored) = persist(stack, connection, &runs, load.total()).await;
            persister.kill();
            forget(stack).await;
            if round > 0 {
                let total = load.total() as f64;
                rate.push(total / stored.all.as_secs_f64() / 1e3);
                own.push(stored.own.as_secs_f64() * 1e6 / total);
                redis.push(stored.redis.as_secs_f64() * 1e6 / total);
            }
        }
    }
    say(format_args!(
        "\nPersister: {ENTRY_COUNT} entries of {EVENTS_EACH} events of {EVENT_BYTES} B, {ROUND_COUNT} rounds in turn, median (least .. most)\n\n\
         | runs | thousand events/s | time per event beside 10 runs | CPU us/event | of Redis |\n|---|---|---|---|---|"
    ));
    let first = figures[0].0.clone();
    for (runs, (rate, own, redis)) in RUN_COUNTS.into_iter().zip(&figures) {
        say(format_args!(
            "| {runs} | {} | {:.2} | {:.2} | {:.2} |",
            spread(rate, 0),
            ratio(&first, rate),
            median(own),
            median(redis),
        ));
    }
}

async fn latency(stack: &Stack, connection: &mut PgConnection) {
    const RUN_COUNT: usize = 10;
    const EVENTS_EACH: usize = 500;
    let runs = create_runs(connection, RUN_COUNT).await;
    let load = Load {
        runs: RUN_COUNT,
        entries: 1,
        events: 1,
    };
    // Each starts with an event that is not measured.
    fill(stack, &runs, load).await;
    let (mut persister, _) = persist(stack, connection, &runs, RUN_COUNT).await;
    let mut waits = Vec::with_capacity(EVENTS_EACH);
    for round in 1..=EVENTS_EACH / RUN_COUNT {
        for &run in &runs {
            let start = Instant::now();
            append_one(stack, run, round as u64).await;
            wait_stored_exactly(connection, run, round + 1, start).await;
            waits.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    persister.kill();
    say(format_args!(
        "\nPersister: {EVENTS_EACH} events, one at a time, from append until the watermark in Postgres has moved, ms\n\n\
         | p50 | p99 | most |\n|---|---|---|\n| {:.1} | {:.1} | {:.1} |",
        median(&waits),
        quantile(&waits, 0.99),
        quantile(&waits, 1.0),
    ));
}

async fn idle(stack: &Stack, connection: &mut PgConnection) {
    let load = Load {
        runs: 10_000,
        entries: 1,
        events: 1,
    };
    let empty = redis_memory(stack).await;
    let runs = create_runs(connection, load.runs).await;
    fill(stack, &runs, load).await;
    let (persister, _) = persist(stack, connection, &runs, load.total()).await;
    let with_window = redis_memory(stack).await;
    // As happens 15 minutes after the last append.
    let mut redis = stack.redis.connection().await;
    for group in runs.chunks(1_000) {
        let streams = group.iter().map(|run| stack.keys().run(*run).stream);
        let mut command = redis::cmd("UNLINK");
        command.arg(streams.collect::<Vec<_>>());
        let _gone: u64 = command.query_async(&mut redis).await.expect("a response");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = redis_memory(stack).await;
    let before = (cpu(persister.id()), redis_cpu(stack).await);
    tokio::time::sleep(IDLE_PERIOD).await;
    let own = cpu(persister.id()).saturating_sub(before.0);
    let of_redis = redis_cpu(stack).await.saturating_sub(before.1);
    let share = |used: Duration| used.as_secs_f64() / IDLE_PERIOD.as_secs_f64() * 100.0;
    let each = |bytes: f64| (bytes - empty) / load.runs as f64;
    say(format_args!(
        "\nPersister: {} idle open runs, looked at for {IDLE_PERIOD:?}\n\n\
         | | |\n|---|---|\n\
         | CPU of the persister, % of a core | {:.2} |\n\
         | CPU of Redis, % of a core, its own housekeeping included | {:.2} |\n\
         | Redis memory of a run with one event in its live window, B | {:.0} |\n\
         | Redis memory of a run after the live window, B | {:.0} |",
        load.runs,
        share(own),
        share(of_redis),
        each(with_window),
        each(idle),
    ));
}

/// The median of the ratios of adjacent rounds: a disturbance usually affects both.
fn ratio(own: &[f64], raw: &[f64]) -> f64 {
    let pairs = own.iter().zip(raw);
    let ratios: Vec<f64> = pairs.map(|(own, raw)| own / raw).collect();
    median(&ratios)
}
