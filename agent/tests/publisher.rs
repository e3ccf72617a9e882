//! The publisher against a real Redis: published events arrive byte for byte, once and in order,
//! whatever happens to the server meanwhile.

mod support;

use std::time::Duration;

use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::event::{Kind, Status, StatusChange};
use runcast_common::protocol::seal::Seal;
use runcast_common::redis;
use runcast_common::scripts::{Append, AppendAs, AppendOutcome, Cap};
use runcast_publisher::{Options, PublishError, Publisher, Stopped, Target};
use support::{PATIENCE, Run, Server, eventually};

/// The joined texts of `output` events.
fn text(events: &[runcast_common::protocol::entry::Event]) -> String {
    let text = |line: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        value["text"].as_str().expect("a text").to_owned()
    };
    events.iter().map(|event| text(&event.line)).collect()
}

fn expected(numbers: std::ops::RangeInclusive<u64>) -> String {
    numbers.map(|number| format!("line {number} é\n")).collect()
}

async fn publish(publisher: &Publisher, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        publisher
            .output(&format!("line {number} é\n"))
            .await
            .expect("published");
    }
}

/// Checks that every event exists once, in order, with dense ids in every epoch.
fn check(events: &[runcast_common::protocol::entry::Event], count: u64) {
    assert_eq!(events.len() as u64, count);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.producer_seq, index as u64 + 1);
        if index > 0 {
            assert_eq!(events[index - 1].id.next(), event.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_come_back_byte_for_byte_in_full_batches() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    publisher.connected(PATIENCE).await.expect("connected");
    publish(&publisher, 1..=10_000).await;
    publisher.flush(PATIENCE).await.expect("flushed");

    let events = run.events().await;
    check(&events, 10_000);
    assert_eq!(text(&events), expected(1..=10_000));
    let entries = run.entries().await.len();
    assert!(entries < 200, "{entries} entries for 10,000 events");

    let mut seal = Seal::default();
    events.iter().for_each(|event| seal.add(&event.line));
    let (closed, _settled) = tokio::join!(
        publisher.finish(StatusChange::to(Status::Succeeded), PATIENCE),
        async {
            eventually("the last status is stored", async || {
                run.settle()
                    .await
                    .last()
                    .is_some_and(|event| event.producer_seq == 10_001)
            })
            .await;
        },
    );
    let closed = closed.expect("closed");
    assert_eq!(
        (closed.stored, closed.in_redis, closed.unsent),
        (10_001, 0, 0)
    );
    assert!(matches!(
        publisher.output("late").await,
        Err(PublishError::Stopped(Stopped::Closed) | PublishError::Closed)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_status_is_sealed_and_close_reports_what_is_only_in_redis() {
    let server = Server::start().await;
    let target = server.target();
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    publish(&publisher, 1..=10).await;
    let change = StatusChange {
        exit_code: Some(3),
        ..StatusChange::to(Status::Failed)
    };
    let within = Duration::from_millis(300);
    let closed = publisher.finish(change, within).await.expect("closed");
    assert_eq!((closed.stored, closed.in_redis, closed.unsent), (0, 11, 0));

    let events = Run::of(&target, &server).events().await;
    let mut seal = Seal::default();
    events[..10].iter().for_each(|event| seal.add(&event.line));
    let last: StatusChange = serde_json::from_slice(&events[10].line).expect("a status");
    assert_eq!((last.seal, last.exit_code), (Some(seal), Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_everything_is_resent_in_a_larger_epoch() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    publish(&publisher, 1..=3_000).await;
    publisher.flush(PATIENCE).await.expect("flushed");
    let before = run.events().await[0].id.epoch;
    run.redis
        .query::<()>(run.keys.slot, &redis::cmd("FLUSHALL"))
        .await
        .expect("flushed");
    // One batch notices it, while more are being published.
    publish(&publisher, 3_001..=6_000).await;
    eventually("all is there again", async || {
        run.events().await.len() == 6_000
    })
    .await;
    let events = run.events().await;
    check(&events, 6_000);
    assert_eq!(text(&events), expected(1..=6_000));
    assert!(events[0].id.epoch > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_publisher_notices_a_flush() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    publish(&publisher, 1..=5).await;
    publisher.flush(PATIENCE).await.expect("flushed");
    run.redis
        .query::<()>(run.keys.slot, &redis::cmd("FLUSHALL"))
        .await
        .expect("flushed");
    eventually("all is there again", async || run.events().await.len() == 5).await;
    check(&run.events().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_process_fences_the_publisher() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    publish(&publisher, 1..=5).await;
    publisher.flush(PATIENCE).await.expect("flushed");
    let (producer, epoch) = publisher.producer();
    let newer = Append {
        producer,
        producer_epoch: epoch + 1,
        base: 0,
        acked: 5,
        first: 6,
        count: 1,
        body: Body::Plain(b"{\"kind\":\"log\"}\n"),
        cap: Cap::default(),
    };
    let appended = run
        .redis
        .run(run.keys.slot, async |connection| {
            newer.call(&run.keys, AppendAs::Service, connection).await
        })
        .await
        .expect("appended");
    assert_eq!(appended.outcome, AppendOutcome::Stored { stored: 6 });

    let fenced = Stopped::Fenced { by: epoch + 1 };
    eventually("the publisher is fenced", async || {
        let result = publisher.output("zombie\n").await;
        matches!(result, Err(PublishError::Stopped(reason)) if reason == fenced)
    })
    .await;
    for result in [
        publisher.flush(PATIENCE).await.map(|()| 0),
        publisher.close(PATIENCE).await.map(|closed| closed.stored),
    ] {
        let result = result.expect_err("fenced").to_string();
        assert!(result.contains("newer process"), "{result}");
    }
    assert_eq!(run.events().await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_run_makes_the_publisher_wait_for_room() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let options = Options {
        cap: Cap {
            entries: 2,
            bytes: 1 << 20,
        },
        buffer_bytes: 400_000,
        ..Options::default()
    };
    let publisher = Publisher::start(&target, options).expect("started");
    // Without a persister first the run fills up, then the buffer, then the queue.
    let payload = serde_json::json!({"text": "x"});
    let mut sent = 0;
    while publisher.try_publish(Kind::Output, &payload).is_ok() {
        sent += 1;
    }
    eventually("the run is full", async || run.entries().await.len() == 2).await;
    let mut seen = Vec::new();
    eventually("the rest goes through as room is made", async || {
        seen.extend(run.settle().await.iter().map(|event| event.producer_seq));
        seen.last() == Some(&sent)
    })
    .await;
    assert_eq!(seen, (1..=sent).collect::<Vec<u64>>());
    let closed = publisher.close(PATIENCE).await.expect("closed");
    assert_eq!((closed.stored, closed.unsent), (sent, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_connection_loses_and_repeats_nothing() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    let kill = async {
        for _ in 0..20 {
            let seen = run.events().await.len();
            run.redis
                .query::<u64>(
                    run.keys.slot,
                    redis::cmd("CLIENT")
                        .arg("KILL")
                        .arg("TYPE")
                        .arg("normal")
                        .arg("SKIPME")
                        .arg("yes"),
                )
                .await
                .expect("killed");
            eventually("publishing goes on", async || {
                run.events().await.len() > seen
            })
            .await;
        }
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let publishing = async {
        let mut last = 0;
        while !stop.is_cancelled() {
            publish(&publisher, last + 1..=last + 100).await;
            last += 100;
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        last
    };
    let (last, ()) = tokio::join!(publishing, async {
        kill.await;
        stop.cancel();
    });
    publisher.flush(PATIENCE).await.expect("flushed");
    let events = run.events().await;
    check(&events, last);
    assert_eq!(text(&events), expected(1..=last));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_script_is_loaded_again() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    publish(&publisher, 1..=10).await;
    publisher.flush(PATIENCE).await.expect("flushed");
    run.redis
        .query::<()>(run.keys.slot, redis::cmd("SCRIPT").arg("FLUSH"))
        .await
        .expect("flushed");
    publish(&publisher, 11..=2_000).await;
    publisher.flush(PATIENCE).await.expect("flushed");
    check(&run.events().await, 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_redis_by_a_unix_socket() {
    let server = Server::start().await;
    let target = server.target();
    let by_socket = Target {
        redis: Some(server.socket_url().parse().expect("a URL")),
        ..target.clone()
    };
    let publisher = Publisher::start(&by_socket, Options::default()).expect("started");
    publish(&publisher, 1..=10).await;
    publisher.flush(PATIENCE).await.expect("flushed");
    check(&Run::of(&target, &server).events().await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_named_and_nothing_hangs() {
    let (target, url) = {
        let server = Server::start().await;
        (server.target(), server.url())
    };
    let address = url.rsplit('@').next().expect("an address");
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    let error = publisher.connected(PATIENCE).await.expect_err("no server");
    assert!(error.to_string().contains(address), "{error}");
    publisher.output("kept\n").await.expect("queued");
    let within = Duration::from_millis(100);
    let error = publisher.flush(within).await.expect_err("not sent");
    assert!(
        error
            .to_string()
            .starts_with("1 events are not in Redis yet"),
        "{error}"
    );
    let closed = publisher.close(within).await.expect("closed");
    assert_eq!((closed.stored, closed.in_redis, closed.unsent), (0, 0, 1));
    assert!(closed.trouble.is_some());
}
