//! Events/s from Redis to committed rows: a real persister beside the least that any could do.
//!
//! The persister's side: 100 runs are filled through the append script, in entries of 512 events of
//! 200 B, before `runcastd persister` is started; measured is the time from its start until the
//! watermarks of all runs in Postgres stand at the end. The raw side: as many rows of as many other
//! runs of the same database lie in memory in Postgres' binary format; measured is a loop on one
//! connection that locks watermarks, COPYs 5,000 rows and moves the watermarks, until all are committed:
//! once with 500 rows of each of ten runs in a transaction, once with 5,000 of one. All in turn, several
//! times, each after a checkpoint.
//!
//! The private Postgres of the stories runs with `fsync=off`: what the disk adds to a commit is on
//! neither side.

mod measure;
mod raw;

use std::time::{Duration, Instant};

use runcast_common::body::Body;
use runcast_common::event::Kind;
use runcast_common::limits::MAX_ENTRY_EVENTS;
use runcast_common::script::{Append, Cap, Outcome};
use runcast_tests::stack::{Part, Stack};
use sqlx::{Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use self::measure::{EVENT_BYTES, cpu, median, say, spread};

const RUNS: usize = 100;

/// Entries of one run, each full.
const ENTRIES: usize = 10;

const EVENTS: usize = RUNS * ENTRIES * MAX_ENTRY_EVENTS;

const ROUNDS: usize = 5;

/// Longest wait for one round.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() {
    let mut stack = Stack::without_services().await;
    // Runs are created by it; while they are stored it is idle.
    stack.launch(Part::Gateway).await;
    let url = stack.database_url(stack.database_port());
    let mut connection = PgConnection::connect(&url).await.expect("a connection");
    let (mut ten, mut one, mut real) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ready, mut own_us) = (Vec::new(), Vec::new());
    // The first round of each is for nothing: files and caches warm up.
    for round in 0..=ROUNDS {
        let mut raw = [0.0; 2];
        for (figure, at_once) in raw.iter_mut().zip([10, 1]) {
            let runs = create_runs(&stack).await;
            checkpoint(&mut connection).await;
            let events = ENTRIES * MAX_ENTRY_EVENTS;
            let seconds = raw::store(&mut connection, &runs, events, at_once).await;
            *figure = EVENTS as f64 / seconds / 1e3;
        }

        let runs = create_runs(&stack).await;
        fill(&stack, &runs).await;
        checkpoint(&mut connection).await;
        let stored = persist(&stack, &mut connection, &runs).await;
        let persisted = EVENTS as f64 / stored.all.as_secs_f64() / 1e3;
        if round > 0 {
            ten.push(raw[0]);
            one.push(raw[1]);
            real.push(persisted);
            ready.push(stored.ready.as_secs_f64() * 1e3);
            own_us.push(stored.cpu.as_secs_f64() * 1e6 / EVENTS as f64);
        }
    }
    say(format_args!(
        "\nPersister: {EVENTS} events of {EVENT_BYTES} B in {RUNS} runs a round, {ROUNDS} rounds in turn, median (least .. most)\n\n\
         | | thousand events/s | ratio to raw, ten runs | ratio to raw, one run | CPU us/event | start until ready, ms |\n\
         |---|---|---|---|---|---|\n\
         | raw, ten runs a transaction | {} | 1.00 | | | |\n\
         | raw, one run a transaction | {} | | 1.00 | | |\n\
         | runcastd persister, from its start | {} | {:.2} | {:.2} | {:.2} | {:.0} |",
        spread(&ten, 0),
        spread(&one, 0),
        spread(&real, 0),
        ratio(&real, &ten),
        ratio(&real, &one),
        median(&own_us),
        median(&ready),
    ));
}

/// The middle one of the ratios of neighbours: what disturbs one mostly disturbs both.
fn ratio(own: &[f64], raw: &[f64]) -> f64 {
    let pairs = own.iter().zip(raw);
    let ratios: Vec<f64> = pairs.map(|(own, raw)| own / raw).collect();
    median(&ratios)
}

async fn create_runs(stack: &Stack) -> Vec<Uuid> {
    let api = stack.api();
    let mut runs = Vec::with_capacity(RUNS);
    for number in 0..RUNS {
        runs.push(api.create_run(&format!("bench {number}")).await.id);
    }
    runs
}

/// Writes what is dirty now, so that no side pays for the other.
async fn checkpoint(connection: &mut PgConnection) {
    let done = connection.execute("CHECKPOINT").await;
    done.expect("a checkpoint");
}

/// Fills the stream of every run, one producer each.
async fn fill(stack: &Stack, runs: &[Uuid]) {
    let mut connection = stack.redis.connection().await;
    let texts = measure::texts();
    let lines = texts.iter().map(|text| measure::line(Kind::Output, text));
    let body: Vec<u8> = lines.take(MAX_ENTRY_EVENTS).flatten().collect();
    for &run in runs {
        let keys = stack.keys().run(run);
        let producer = Uuid::now_v7();
        for first in (1..).step_by(MAX_ENTRY_EVENTS).take(ENTRIES) {
            let append = Append {
                producer,
                producer_epoch: 1,
                base: 0,
                acked: 0,
                first,
                count: MAX_ENTRY_EVENTS as u64,
                body: Body::packed(&body),
                cap: Cap::default(),
            };
            let appended = append.call(&keys, &mut connection).await;
            let outcome = appended.expect("an answer").outcome;
            assert!(matches!(outcome, Outcome::Stored { .. }), "{outcome:?}");
        }
    }
}

/// What one round of the persister took.
struct Stored {
    all: Duration,
    ready: Duration,
    cpu: Duration,
}

async fn persist(stack: &Stack, connection: &mut PgConnection, runs: &[Uuid]) -> Stored {
    let start = Instant::now();
    let recipe = stack.recipe(Part::Persister);
    let mut persister = recipe.start(stack.folder());
    persister.says("Runcast persister is ready", PATIENCE).await;
    let ready = start.elapsed();
    loop {
        let statement = "SELECT coalesce(sum(events), 0)::bigint FROM runs WHERE id = ANY($1)";
        let stored: i64 = sqlx::query_scalar(statement)
            .bind(runs)
            .fetch_one(&mut *connection)
            .await
            .expect("the watermarks");
        if usize::try_from(stored).is_ok_and(|stored| stored >= EVENTS) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{stored} of {EVENTS} stored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (all, cpu) = (start.elapsed(), cpu(persister.id()));
    persister.kill();
    Stored { all, ready, cpu }
}
