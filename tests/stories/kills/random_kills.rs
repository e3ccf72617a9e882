//! Persisters, Postgres and Redis die at random moments while several producers publish to several
//! runs. In the end the rows equal what was published, byte for byte, in order, without duplicates,
//! and every run is sealed.
//!
//! Postgres is killed, stopped immediately, or stopped in order. Redis comes back with its
//! append-only file, empty, or as it was at an earlier crash, as after a failover to a replica that
//! lagged.
//!
//! An ordinary test run has [`DEFAULT_KILLS`] kills with a fixed seed. `RUNCAST_KILLS=100` sets
//! another number, with a new seed, and `RUNCAST_KILLS_SEED` sets the seed; it is printed.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use runcast_common::protocol::event::Kind;
use runcast_tests::database::{text, variation_events};
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::postgres::{Durability, PostgresServer};
use runcast_tests::process::Process;
use runcast_tests::redis_server::CrashRecovery;
use runcast_tests::stack::{Service, Stack};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use crate::kills::load::Source;

/// Kills of an ordinary test run, and its seed.
const DEFAULT_KILLS: u32 = 20;
const DEFAULT_SEED: u64 = 1;

/// Runs, and producers per run, one per variation.
const RUN_COUNT: usize = 3;
const PRODUCERS_PER_RUN: usize = 2;

/// Longest pause before a kill, and longest downtime of a killed server, in milliseconds.
const MAX_PAUSE_MS: u64 = 700;
const MAX_DOWN_MS: u64 = 400;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// One of the two persisters; it is replaced.
    Persister(usize),
    Postgres(Signal),
    Redis(CrashRecovery),
}

fn victim(rng: &mut StdRng) -> Victim {
    match rng.random_range(0..12) {
        0..2 => Victim::Persister(0),
        2..4 => Victim::Persister(1),
        4..6 => Victim::Postgres(Signal::SIGKILL),
        6 => Victim::Postgres(Signal::SIGQUIT),
        7 => Victim::Postgres(Signal::SIGINT),
        8..10 => Victim::Redis(CrashRecovery::AppendOnlyFile),
        10 => Victim::Redis(CrashRecovery::EarlierCopy),
        _ => Victim::Redis(CrashRecovery::Empty),
    }
}

/// The value of an environment variable, if set.
fn env_value<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_store_each_event_once() {
    let requested: Option<u32> = env_value("RUNCAST_KILLS");
    let seed = env_value("RUNCAST_KILLS_SEED");
    let seed = seed.unwrap_or_else(|| requested.map_or(DEFAULT_SEED, |_| rand::random()));
    let kills = requested.unwrap_or(DEFAULT_KILLS);
    print_line(&format!(
        "{kills} kills: RUNCAST_KILLS={kills} RUNCAST_KILLS_SEED={seed}\n"
    ));
    let start = Instant::now();
    let mut scene = KillScenario::set(seed).await;
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..kills {
        scene.kill(&mut rng).await;
    }
    let killed = start.elapsed();
    let stored = scene.end().await;
    let took = start.elapsed();
    print_line(&format!(
        "{stored} events; the last kill after {killed:?}, all sealed after {took:?}\n"
    ));
}

/// Bypasses the test runner, which prints only the output of failed tests.
fn print_line(text: &str) {
    let written = std::io::stderr().write_all(text.as_bytes());
    written.expect("stderr takes a line");
}

struct KillScenario {
    stack: Stack,
    persisters: [Process; 2],
    runs: Vec<(Uuid, Vec<Source>)>,
    stop: watch::Sender<bool>,
}

impl KillScenario {
    async fn set(seed: u64) -> Self {
        let postgres = Arc::new(PostgresServer::start(Durability::NoFsync).await);
        let mut stack = Stack::with_postgres(postgres).await;
        stack.redis.enable_append_only_file().await;
        stack.start_service(Service::Gateway).await;
        stack.start_service(Service::Worker).await;
        let persisters = [persister(&stack, 0).await, persister(&stack, 1).await];
        let stop = watch::Sender::new(false);
        let mut runs = Vec::new();
        for number in 0..RUN_COUNT {
            let api = stack.api();
            let run = api
                .create_run_of("while servers are killed", PRODUCERS_PER_RUN)
                .await
                .id;
            let sources = (0..PRODUCERS_PER_RUN).map(|variation| {
                let own = seed ^ ((number * PRODUCERS_PER_RUN + variation) as u64) << 32;
                let stored_text = stop.subscribe();
                Source::start(&mut stack, run, variation, variation == 0, own, stored_text)
            });
            runs.push((run, sources.collect()));
        }
        for (run, _) in &runs {
            stack.database.wait_stored_events(*run, 10).await;
        }
        Self {
            stack,
            persisters,
            runs,
            stop,
        }
    }

    async fn kill(&mut self, rng: &mut StdRng) {
        sleep(Duration::from_millis(rng.random_range(0..MAX_PAUSE_MS))).await;
        let down = Duration::from_millis(rng.random_range(0..MAX_DOWN_MS));
        match victim(rng) {
            Victim::Persister(number) => {
                let killed = &mut self.persisters[number];
                let ended = killed.try_wait();
                assert_eq!(ended, None, "it exited unexpectedly\n{}", killed.logs());
                killed.kill();
                sleep(down).await;
                self.persisters[number] = persister(&self.stack, number).await;
            }
            Victim::Postgres(signal) => self.stack.postgres.restart(signal, down).await,
            Victim::Redis(memory) => self.stack.redis.crash(memory, down).await,
        }
    }

    /// Lets producers and persisters finish, and checks what is stored; returns its size in bytes.
    async fn end(self) -> usize {
        self.stop.send_replace(true);
        let mut count = 0;
        for (run, sources) in self.runs {
            let mut output = Vec::new();
            for source in sources {
                output.push((source.variation, source.finish().await));
            }
            // Checks dense seqs of each producer in the order of the events, and all seals.
            let events = self.stack.database.wait_sealed(run).await;
            for (variation, output) in output {
                let stored = text(&variation_events(&events, variation), Kind::Output);
                assert_same(&stored, &output);
            }
            let received = |event: &&_| is_gap(event);
            assert_eq!(events.iter().find(received), None, "nothing was lost");
            let producers: BTreeSet<Uuid> = events.iter().map(|event| event.producer).collect();
            assert_eq!(
                producers.len(),
                PRODUCERS_PER_RUN,
                "each variation is one producer"
            );
            assert_eq!(self.stack.database.dead_letters(run).await, []);
            count += events.len();
        }
        for mut persister in self.persisters {
            persister.signal(Signal::SIGTERM);
            let status = persister.wait_exit(WAIT_DEADLINE).await;
            assert!(status.success(), "{status}\n{}", persister.logs());
        }
        count
    }
}

fn is_gap(event: &runcast_tests::database::StoredEvent) -> bool {
    event.kind == Kind::Gap.number()
}

async fn persister(stack: &Stack, number: usize) -> Process {
    let mut spec = stack.service_spec(Service::Persister);
    spec.name = format!("persister-{number}");
    let mut process = spec.start(stack.folder());
    process
        .wait_for_line("Runcast persister is ready", WAIT_DEADLINE)
        .await;
    process
}

/// Compares bytes, and shows where they differ.
fn assert_same(stored: &[u8], output: &[u8]) {
    if stored == output {
        return;
    }
    let mut pairs = stored.iter().zip(output);
    let same = pairs.position(|(one, other)| one != other);
    let same = same.unwrap_or(stored.len().min(output.len()));
    let displayed = |bytes: &[u8]| {
        bytes[same..bytes.len().min(same + 80)]
            .escape_ascii()
            .to_string()
    };
    panic!(
        "{} of {} bytes are stored; after {same} there is {:?} instead of {:?}",
        stored.len(),
        output.len(),
        displayed(stored),
        displayed(output)
    );
}
