//! The property: whatever happens, in any order, to the producers of a run, to Redis and to the
//! persister, Postgres holds each event once, in order, byte for byte, and the run is sealed.
//!
//! `proptest` generates plans of such steps. It shrinks a plan that fails, and adds its seed to
//! [`KNOWN_SEEDS_FILE`], whose plans are tried first from then on. `PROPTEST_CASES` sets the number
//! of plans (default [`DEFAULT_CASES`]), `PROPTEST_RNG_SEED` their seed.

use std::cell::RefCell;
use std::sync::Arc;

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};
use runcast_common::protocol::event::Kind;
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::database::{StoredEvent, text, variation_events};
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

use crate::interleavings::plan::{End, PRODUCER_COUNT, Step, plan};
use crate::interleavings::producer::Producer;

/// Plans of an ordinary test run: 20 to 30 s.
const DEFAULT_CASES: u32 = 10;

/// Plans to try while a failing one is shrunk, and for how long: a plan that fails by a timeout
/// takes half a minute.
const MAX_SHRINK_CASES: u32 = 60;
const MAX_SHRINK_MS: u32 = 5 * 60 * 1000;

/// Seeds of plans that failed once.
const KNOWN_SEEDS_FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/stories/interleavings/known.txt"
);

#[test]
fn any_interleaving_stores_each_event_once_in_order() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let world = RefCell::new(runtime.block_on(PropertyStack::start()));
    let mut config = Config {
        max_shrink_iters: MAX_SHRINK_CASES,
        max_shrink_time: MAX_SHRINK_MS,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(KNOWN_SEEDS_FILE))),
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = DEFAULT_CASES;
        // By default all runs try the same plans, so that a failure comes from a change of the
        // code. With PROPTEST_CASES they try new ones.
        config.rng_seed = RngSeed::Fixed(1);
    }
    let tried = TestRunner::new(config).run(&plan(), |plan| {
        runtime.block_on(world.borrow_mut().play(&plan));
        Ok(())
    });
    let _entered = runtime.enter();
    // A failed story prints its logs.
    let world = world.into_inner();
    if let Err(failed) = tried {
        panic!("{failed}");
    }
    drop(world);
}

/// The installation for all plans, one after the other.
struct PropertyStack {
    stack: Stack,
    /// Between the producers and Redis.
    chaos: Arc<ChaosProxy>,
    persister_runs: bool,
}

/// The run of a plan.
struct RunState {
    run: Uuid,
    producers: Vec<Producer>,
}

impl PropertyStack {
    async fn start() -> Self {
        let mut stack = Stack::start().await;
        let chaos = stack.proxy_redis().await;
        Self {
            stack,
            chaos,
            persister_runs: true,
        }
    }

    async fn play(&mut self, plan: &[Step]) {
        // The previous plan may have failed anywhere.
        self.recover().await;
        let api = self.stack.api();
        let run = api
            .create_run_of("any interleaving", PRODUCER_COUNT)
            .await
            .id;
        let redis = self.stack.redis.publisher_url(self.chaos.port());
        let producers = (0..PRODUCER_COUNT)
            .map(|variation| Producer::start(&mut self.stack, run, variation, &redis))
            .collect();
        let mut play = RunState { run, producers };
        for step in plan {
            self.take(step, &mut play).await;
        }
        self.recover().await;
        for producer in &mut play.producers {
            producer.finish().await;
        }
        self.check(&play).await;
    }

    /// Ends all faults.
    async fn recover(&mut self) {
        self.chaos.drop_replies(0, b"EVALSHA");
        self.chaos.forward();
        self.start_persister().await;
    }

    async fn take(&mut self, step: &Step, play: &mut RunState) {
        match step {
            Step::Say { producer, lines } => play.producers[*producer].say(lines).await,
            Step::Store => {
                self.recover().await;
                for variation in 0..PRODUCER_COUNT {
                    self.keep(play, variation, false).await;
                }
            }
            Step::LoseAnswers(times) => self.chaos.drop_replies(*times, b"EVALSHA"),
            Step::Cut => self.chaos.cut(),
            Step::Refuse => self.chaos.refuse(),
            Step::Forward => self.chaos.forward(),
            Step::Flush => self.flush().await,
            Step::KillPersister => {
                if std::mem::take(&mut self.persister_runs) {
                    self.stack.kill(Service::Persister);
                }
            }
            Step::StartPersister => self.start_persister().await,
            Step::Crash { producer, end } => self.crash(play, *producer, *end).await,
        }
    }

    async fn crash(&mut self, play: &mut RunState, producer: usize, end: End) {
        match end {
            End::Abrupt => {
                play.producers[producer].kill();
                play.producers[producer].succeed(&mut self.stack);
            }
            End::Spooled => {
                self.keep(play, producer, true).await;
                play.producers[producer].kill();
                play.producers[producer].succeed(&mut self.stack);
            }
            End::Rival => {
                play.producers[producer].say(&[]).await;
                play.producers[producer].succeed(&mut self.stack);
                play.producers[producer].print_late_lines().await;
                play.producers[producer].say(&[]).await;
            }
            End::Zombie => {
                // It must work before; otherwise it would be the newer one of the two when it
                // resumes.
                play.producers[producer].say(&[]).await;
                play.producers[producer].stop();
                play.producers[producer].succeed(&mut self.stack);
                play.producers[producer].say(&[]).await;
                // It has taken over once one of its events is stored.
                self.recover().await;
                self.keep(play, producer, false).await;
                play.producers[producer].resume_zombie().await;
            }
        }
    }

    /// Waits until all lines of a producer are stored or, if `in_spool`, spooled.
    async fn keep(&self, play: &mut RunState, variation: usize, in_spool: bool) {
        let (database, run) = (&self.stack.database, play.run);
        let stored = async || printed(&database.events(run).await, variation);
        play.producers[variation].wait_kept(in_spool, stored).await;
    }

    async fn flush(&self) {
        let mut redis = self.stack.redis.connection().await;
        let flushed: redis::RedisResult<()> = redis::cmd("FLUSHALL").query_async(&mut redis).await;
        flushed.expect("FLUSHALL");
    }

    async fn start_persister(&mut self) {
        if !self.persister_runs {
            self.stack.start_service(Service::Persister).await;
            self.persister_runs = true;
        }
    }

    /// Checks the property.
    async fn check(&self, play: &RunState) {
        // Checks dense seqs of each producer in the order of the events, and all seals.
        let events = self.stack.database.wait_sealed(play.run).await;
        for (variation, producer) in play.producers.iter().enumerate() {
            producer.check(&printed(&events, variation));
        }
        // Events that a kill cut off in writing are reported once; nothing else is missing.
        let kills: usize = play.producers.iter().map(|producer| producer.kills).sum();
        let gaps = events
            .iter()
            .filter(|event| event.kind == Kind::Gap.number());
        assert!(gaps.count() <= kills, "more gaps than kills");
        let producers = events.iter().map(|event| event.producer);
        let distinct: std::collections::BTreeSet<Uuid> = producers.collect();
        assert_eq!(
            distinct.len(),
            PRODUCER_COUNT,
            "each variation stays one producer"
        );
        assert_eq!(self.stack.database.dead_letters(play.run).await, []);
    }
}

/// The stored text of one variation.
fn printed(events: &[StoredEvent], variation: usize) -> Vec<u8> {
    text(&variation_events(events, variation), Kind::Output)
}
