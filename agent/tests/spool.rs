//! The spool against a real Redis: published events survive an unreachable or lost Redis, the death
//! of the process and damaged files, once and in order; lost events are counted.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Kind, Status, StatusChange, Text};
use runcast_common::protocol::seal::Seal;
use runcast_common::redis;
use runcast_publisher::Publisher;
use runcast_publisher::{Fsync, Options, PublishError, SpoolOptions, Stopped, Target};
use support::{PATIENCE, Run, Server, eventually};
use tokio::time::{Instant, sleep};

fn spooled(folder: &Path, max_bytes: u64) -> Options {
    let spool = SpoolOptions {
        max_bytes,
        fsync: Fsync::Interval(Duration::from_millis(20)),
        ..SpoolOptions::new(folder)
    };
    Options {
        // Everything is kept by the spool, nothing by memory.
        buffer_bytes: 1,
        spool: Some(spool),
        ..Options::default()
    }
}

async fn publish(publisher: &Publisher, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let line = format!("{number} {}\n", "x".repeat(200));
        publisher.output(&line).await.expect("published");
    }
}

fn lines(events: &[Event]) -> Vec<serde_json::Value> {
    let parse = |event: &Event| serde_json::from_slice(&event.line).expect("JSON");
    events.iter().map(parse).collect()
}

/// The numbers in the texts of `output`.
fn numbers(events: &[Event]) -> Vec<u64> {
    let number = |line: serde_json::Value| {
        let text = line["text"].as_str()?;
        text.split(' ').next()?.parse().ok()
    };
    lines(events).into_iter().filter_map(number).collect()
}

fn check_dense(events: &[Event], count: u64) {
    let seqs: Vec<u64> = events.iter().map(|event| event.producer_seq).collect();
    assert_eq!(seqs, (1..=count).collect::<Vec<u64>>());
}

/// Acts as a persister until an event of this seq is stored. Returns everything it stored.
async fn settle_until(run: &Run, seq: u64) -> Vec<Event> {
    let mut stored: Vec<Event> = Vec::new();
    let deadline = Instant::now() + 3 * PATIENCE;
    while stored.last().is_none_or(|event| event.producer_seq < seq) {
        assert!(
            Instant::now() < deadline,
            "stored {} of {seq}",
            stored.len()
        );
        stored.extend(run.settle().await);
        sleep(Duration::from_millis(5)).await;
    }
    stored
}

fn segments(folder: &Path, target: &Target) -> Vec<PathBuf> {
    let lies = folder.join(format!("{}-{}", target.run, target.variation));
    let Ok(files) = std::fs::read_dir(lies) else {
        return Vec::new();
    };
    let paths = files.map(|file| file.expect("a file").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "spool"))
        .collect();
    paths.sort();
    paths
}

/// Publishes while Redis is down, and dies without closing.
async fn leave_behind(target: &Target, options: Options, count: u64) {
    let publisher = Publisher::start(target, options).expect("started");
    publish(&publisher, 1..=count).await;
    // Events that are still in the queue go into the spool at once.
    let closed = publisher.close(Duration::ZERO).await;
    let closed = closed.expect("closed");
    assert_eq!((closed.spooled, closed.unsent), (count, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_beyond_memory_loses_nothing_and_leaves_no_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::down();
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, spooled(folder.path(), 256 << 20)).expect("started");
    publish(&publisher, 1..=120_000).await;
    server.up().await;
    let change = StatusChange::to(Status::Succeeded);
    let (closed, events) = tokio::join!(
        publisher.finish(change, 2 * PATIENCE),
        settle_until(&run, 120_001)
    );
    assert_eq!(closed.expect("closed").stored, 120_001);
    check_dense(&events, 120_001);
    assert_eq!(numbers(&events), (1..=120_000).collect::<Vec<u64>>());
    assert_eq!(segments(folder.path(), &target), [] as [PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_everything_is_resent_from_the_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, spooled(folder.path(), 256 << 20)).expect("started");
    publish(&publisher, 1..=60_000).await;
    publisher.flush(PATIENCE).await.expect("flushed");
    let flush = redis::cmd("FLUSHALL");
    run.redis
        .query::<()>(run.keys.slot, &flush)
        .await
        .expect("flushed");
    publish(&publisher, 60_001..=70_000).await;
    eventually("all is there again", async || {
        run.events().await.len() == 70_000
    })
    .await;
    check_dense(&run.events().await, 70_000);
    assert_eq!(
        numbers(&run.events().await),
        (1..=70_000).collect::<Vec<u64>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_sends_the_spool_and_fences_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let options = spooled(folder.path(), 64 << 20);
    let old = Publisher::start(&target, options.clone()).expect("started");
    publish(&old, 1..=1000).await;
    old.flush(PATIENCE).await.expect("flushed");

    let new = Publisher::start(&target, options).expect("started");
    assert_eq!(new.producer().0, old.producer().0);
    assert!(new.producer().1 > old.producer().1);
    new.connected(PATIENCE).await.expect("connected");
    let by = new.producer().1;
    publish(&new, 1001..=2000).await;
    new.flush(PATIENCE).await.expect("flushed");
    eventually("the old process is fenced", async || {
        let result = old.output("zombie\n").await;
        matches!(result, Err(PublishError::Stopped(Stopped::Fenced { by: newer })) if newer == by)
    })
    .await;
    let change = StatusChange::to(Status::Succeeded);
    let (closed, events) = tokio::join!(new.finish(change, PATIENCE), settle_until(&run, 2001));
    closed.expect("closed");
    check_dense(&events, 2001);
    assert_eq!(numbers(&events), (1..=2000).collect::<Vec<u64>>());
    let mut seal = Seal::default();
    events[..2000]
        .iter()
        .for_each(|event| seal.add(&event.line));
    let last: StatusChange = serde_json::from_slice(&events[2000].line).expect("a status");
    assert_eq!(last.seal, Some(seal), "the seal goes on across processes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_fenced_before_its_successor_publishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start().await;
    let target = server.target();
    let options = spooled(folder.path(), 64 << 20);
    let old = Publisher::start(&target, options.clone()).expect("started");
    publish(&old, 1..=10).await;
    old.flush(PATIENCE).await.expect("flushed");
    let new = Publisher::start(&target, options).expect("started");
    // Events that the old process wrote after its successor had read the spool, and before it was
    // fenced.
    publish(&old, 11..=20).await;
    new.connected(PATIENCE).await.expect("connected");
    eventually("the old process is fenced", async || {
        let result = old.output("zombie\n").await;
        matches!(result, Err(PublishError::Stopped(Stopped::Fenced { .. })))
    })
    .await;
    publish(&new, 21..=30).await;
    let run = Run::of(&target, &server);
    let change = StatusChange::to(Status::Succeeded);
    let settled = async {
        let mut stored: Vec<Event> = Vec::new();
        eventually("the run is over", async || {
            stored.extend(run.settle().await);
            lines(&stored)
                .last()
                .is_some_and(|line| line["kind"] == "status")
        })
        .await;
        stored
    };
    let (closed, events) = tokio::join!(new.finish(change, PATIENCE), settled);
    assert_eq!(closed.expect("closed").unsent, 0);
    check_dense(&events, events.len() as u64);
    let (end, before) = events.split_last().expect("events");
    let mut seal = Seal::default();
    before.iter().for_each(|event| seal.add(&event.line));
    let last: StatusChange = serde_json::from_slice(&end.line).expect("a status");
    assert_eq!(
        last.seal,
        Some(seal),
        "it covers what the old one wrote too"
    );
    let said = numbers(&events);
    assert_eq!(said[..10], (1..=10).collect::<Vec<u64>>());
    assert_eq!(said[said.len() - 10..], (21..=30).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_one_gap_and_all_other_records_arrive() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::down();
    let target = server.target();
    leave_behind(&target, spooled(folder.path(), 64 << 20), 5000).await;
    let file = &segments(folder.path(), &target)[0];
    let mut bytes = std::fs::read(file).expect("bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(file, bytes).expect("written");

    server.up().await;
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, spooled(folder.path(), 64 << 20)).expect("started");
    publish(&publisher, 5001..=5100).await;
    let events = settle_until(&run, 5100).await;
    let gaps: Vec<serde_json::Value> = lines(&events)
        .into_iter()
        .filter(|line| line["kind"] == "gap")
        .collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["reason"], "unreadable");
    let (count, lost) = (gaps[0]["count"].as_u64(), gaps[0]["bytes"].as_u64());
    let (count, lost) = (count.expect("a count"), lost.expect("bytes"));
    let seen = numbers(&events);
    assert_eq!(seen.len() as u64 + count, 5100);
    assert!(
        lost > count * 200 && lost < count * 400,
        "{lost} for {count}"
    );
    assert!(seen.is_sorted_by(|one, next| one < next));
    let seqs: Vec<u64> = events.iter().map(|event| event.producer_seq).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_loses_its_end_as_a_gap() {
    let seed: u64 = rand::random();
    let server = Server::start().await;
    for case in 0..8 {
        let folder = tempfile::tempdir().expect("a folder");
        let target = server.target();
        let nowhere = Target {
            redis: Some("redis://127.0.0.1:1".parse().expect("an address")),
            ..target.clone()
        };
        leave_behind(&nowhere, spooled(folder.path(), 64 << 20), 2000).await;
        let file = &segments(folder.path(), &target)[0];
        let bytes = std::fs::read(file).expect("bytes");
        let cut = usize::try_from(seed.wrapping_mul(2 * case + 1) % bytes.len() as u64);
        std::fs::write(file, &bytes[..cut.expect("fits")]).expect("written");

        let run = Run::of(&target, &server);
        let publisher =
            Publisher::start(&target, spooled(folder.path(), 64 << 20)).expect("started");
        publish(&publisher, 9001..=9010).await;
        publisher.flush(PATIENCE).await.expect("flushed");
        let events = run.events().await;
        let seen = numbers(&events);
        let old: Vec<u64> = seen
            .iter()
            .copied()
            .filter(|number| *number < 9000)
            .collect();
        assert_eq!(
            old,
            (1..=old.len() as u64).collect::<Vec<u64>>(),
            "seed {seed} {case}"
        );
        assert_eq!(seen.len(), old.len() + 10, "seed {seed} {case}");
        check_dense(&events, events.len() as u64);
        assert!(
            events.len() - seen.len() <= 1,
            "at most one gap: seed {seed} {case}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_makes_output_wait_and_counts_the_oldest_logs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::down();
    let target = server.target();
    let publisher = Publisher::start(&target, spooled(folder.path(), 1 << 20)).expect("started");
    let text = "x".repeat(200);
    let payload = Text::from_chunk(None, text.as_bytes());
    let mut sent = 0;
    while sent < 300_000 {
        publisher
            .publish(Kind::Log, &payload)
            .await
            .expect("never waits for long");
        sent += 1;
    }
    let patience = Duration::from_millis(200);
    let mut output = 0;
    // Output waits at the limit, without a deadline of its own.
    while let Ok(published) =
        tokio::time::timeout(patience, publisher.publish(Kind::Output, &payload)).await
    {
        published.expect("published");
        output += 1;
        assert!(output < 100_000, "never full");
    }
    server.up().await;
    let run = Run::of(&target, &server);
    let (mut kept, mut dropped, mut seen_output, mut next) = (0, 0, 0, 1);
    eventually("all is stored", async || {
        for event in run.settle().await {
            assert_eq!(event.producer_seq, next);
            next += 1;
            let line: serde_json::Value = serde_json::from_slice(&event.line).expect("JSON");
            match line["kind"].as_str() {
                Some("gap") => dropped += line["count"].as_u64().expect("a count"),
                Some("log") => kept += 1,
                _ => seen_output += 1,
            }
        }
        kept + dropped == sent && seen_output == output
    })
    .await;
    assert!(dropped > 0 && kept > 1000, "{kept} {dropped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_folder_disables_only_the_spool() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let server = Server::start().await;
    let target = server.target();
    let options = Options {
        buffer_bytes: 1 << 20,
        ..spooled(file.path(), 1 << 20)
    };
    let publisher = Publisher::start(&target, options).expect("started");
    assert_eq!(publisher.spool(), None);
    publish(&publisher, 1..=100).await;
    publisher.flush(PATIENCE).await.expect("flushed");
    check_dense(&Run::of(&target, &server).events().await, 100);
}
