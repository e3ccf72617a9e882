//! Redis within its memory budget: the biggest run waits, small ones continue, and everything is
//! stored in the end. With Redis out of memory, storing frees room by trimming stored events, and
//! only those.

use redis::aio::MultiplexedConnection;
use runcast_common::scripts::{AppendOutcome, LiveWindow, Settle, SettleOutcome};
use runcast_tests::api::CreatedRun;
use runcast_tests::database::assert_each_once;
use runcast_tests::event_lines::output_line;
use runcast_tests::eventually::eventually;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

/// A line of 64 KiB that hardly compresses.
fn noise() -> Vec<u8> {
    output_line(&noise_of(2048))
}

/// This many random texts of 32 bytes, concatenated.
fn noise_of(count: usize) -> String {
    let texts = std::iter::repeat_with(|| Uuid::new_v4().simple().to_string());
    texts.take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_budget_biggest_run_waits_and_small_ones_continue() {
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_postgres().await;
    let address = stack.database_url(chaos.port());
    stack.start_service(Service::Gateway).await;
    stack.set(Service::Persister, "DATABASE_URL", address);
    stack.set(Service::Persister, "RUNCAST_REDIS_BUDGET", "12MiB");
    stack.start_service(Service::Persister).await;
    let api = stack.api();
    let (big, small) = (api.create_run("big").await, api.create_run("small").await);
    let publisher = async |run: &CreatedRun| {
        Publisher::new(run.publisher_connection().await, stack.keys(), run.id)
    };
    let (mut much, mut little) = (publisher(&big).await, publisher(&small).await);
    chaos.refuse();
    eventually("the big run gets `full`", async || {
        for _ in 0..50 {
            if much.try_append(&noise()).await == AppendOutcome::Full {
                return Ok(());
            }
        }
        Err("memory grows".to_owned())
    })
    .await;
    for number in 0..50 {
        let outcome = little
            .try_append(&output_line(&format!("line {number}\n")))
            .await;
        assert!(
            matches!(outcome, AppendOutcome::Stored { .. }),
            "{outcome:?}"
        );
    }
    // The cap is lifted once the unstored events are stored and trimmed.
    chaos.forward();
    let last = eventually("the big run continues", async || {
        match much.try_append(&output_line("at last\n")).await {
            AppendOutcome::Stored { stored } => Ok(stored),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stack.database.wait_stored_events(big.id, last).await;
    stack.database.wait_stored_events(small.id, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_budget_idle_runs_are_trimmed() {
    let stack = Stack::start().await;
    let mut redis = stack.redis.connection().await;
    let mut limit = redis::cmd("CONFIG");
    // The budget is three quarters of it.
    limit.arg(&["SET", "maxmemory", "24mb"]);
    let () = limit.query_async(&mut redis).await.expect("a limit");
    // Each keeps some 6 MB, less than the live window allows.
    for name in ["one", "two", "three"] {
        let run = stack.api().create_run(name).await;
        let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
        for _ in 0..160 {
            publisher.publish(&[noise()]).await;
        }
        stack.database.wait_stored_events(run.id, 160).await;
    }
    eventually("Redis is within its budget", async || {
        let used = memory(&mut redis).await;
        let enough = (used < 10_000_000).then_some(());
        enough.ok_or_else(|| format!("{used} bytes"))
    })
    .await;
}

/// The memory that Redis uses.
async fn memory(redis: &mut MultiplexedConnection) -> u64 {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let received: String = info.query_async(redis).await.expect("INFO");
    let mut lines = received.lines();
    let used = lines.find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|used| used.trim().parse().ok())
        .expect("used memory")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_redis_is_relieved_by_storing() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("no memory").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let last = publisher.publish(&[output_line("first\n")]).await;
    stack.database.wait_stored(run.id, last).await;
    stack.kill(Service::Persister);
    let mut redis = stack.redis.connection().await;
    let mut limit = redis::cmd("CONFIG");
    limit.arg(&["SET", "maxmemory", "16mb"]);
    let () = limit.query_async(&mut redis).await.expect("a limit");

    // More events than the live window keeps, and more bytes than Redis has.
    let line = || output_line(&noise_of(12));
    let (refused, lines) = loop {
        let lines: Vec<_> = std::iter::repeat_with(line).take(200).collect();
        if let Err(refused) = publisher.publish_if_room(&lines).await {
            break (refused, lines);
        }
    };
    assert!(refused.contains("OOM"), "{refused}");
    // What Redis frees meanwhile, such as the buffers of connections, must not be what helps.
    limit = redis::cmd("CONFIG");
    limit.arg(&["SET", "maxmemory", "12mb"]);
    let () = limit.query_async(&mut redis).await.expect("a limit");
    stack.start_service(Service::Persister).await;
    // As the biggest run it may get `full` replies for a while.
    let last = eventually("publishing continues", async || {
        publisher.publish_if_room(&lines).await
    })
    .await;
    stack.database.wait_stored(run.id, last).await;
    let events = stack.database.events(run.id).await;
    assert_each_once(&events);
    assert!(events.len() > 10_000, "{} events", events.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smaller_live_window_trims_only_stored_events() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("window").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let line = |number: u64| output_line(&format!("{number} {}\n", "x".repeat(1000)));
    for number in 0..300 {
        publisher.publish(&[line(number)]).await;
    }
    stack.database.wait_stored_events(run.id, 300).await;
    stack.kill(Service::Persister);
    let stored = stack.database.run(run.id).await.watermark;
    for number in 300..350 {
        publisher.publish(&[line(number)]).await;
    }

    let keys = stack.keys().run(run.id);
    let mut redis = stack.redis.connection().await;
    let mut shrink = async |events: u64, bytes: u64| {
        let window = LiveWindow {
            events,
            bytes,
            ..LiveWindow::default()
        };
        let settle = Settle {
            watermark: stored,
            sealed: None,
            ready_ids: &[],
            durable: &[(publisher.producer, stored.seq)],
            window,
        };
        let settled = settle.call(&keys, &mut redis).await;
        assert_eq!(settled.expect("the script answers"), SettleOutcome::More);
        seqs(&mut redis, &keys.stream).await
    };
    let unstored: Vec<u64> = (301..=350).collect();
    let mut before: Vec<u64> = (1..=350).collect();
    assert_eq!(
        shrink(10_000, u64::MAX >> 12).await,
        before,
        "memory is within the limit"
    );
    assert_eq!(shrink(200, u64::MAX >> 12).await, before.split_off(100));
    // About 150 lines, including the unstored ones.
    let left = shrink(200, 150 * 1080).await;
    assert!((120..180).contains(&left.len()), "{}", left.len());
    assert!(left.ends_with(&unstored), "{left:?}");
    for (events, bytes) in [(0, u64::MAX >> 12), (200, 0), (0, 0)] {
        assert_eq!(shrink(events, bytes).await, unstored);
    }

    stack.start_service(Service::Persister).await;
    stack.database.wait_stored_events(run.id, 350).await;
    let events = stack.database.events(run.id).await;
    assert_each_once(&events);
    let seqs: Vec<u64> = events.iter().map(|event| event.id.seq).collect();
    assert_eq!(seqs, (1..=350).collect::<Vec<u64>>());
}

/// The seqs of the entries of a stream.
async fn seqs(redis: &mut MultiplexedConnection, stream: &str) -> Vec<u64> {
    let mut command = redis::cmd("XRANGE");
    command.arg(stream).arg(&["-", "+"]);
    let entries: Vec<(String, Vec<redis::Value>)> =
        command.query_async(redis).await.expect("entries");
    let seq = |id: &str| id.split_once('-').and_then(|(_, seq)| seq.parse().ok());
    let seqs = entries.iter().map(|(id, _)| seq(id).expect("an id"));
    seqs.collect()
}
