//! Redis loses all data in the middle of a run: producers resend, Postgres stores once, viewers get
//! a gap.

use runcast_common::protocol::event::Kind;
use runcast_tests::database::{StoredEvent, text};
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::shell_exit_code;
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

use crate::crashes::ticking;
use crate::viewer::{Viewer, assert_text, numbers};

const TICK_COUNT: u32 = 300;

/// The checks at the end of each of these stories.
async fn assert_whole(stack: &Stack, run: Uuid, viewer: &Viewer) -> Vec<StoredEvent> {
    let output = numbers("tick", 1..=TICK_COUNT.into());
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    assert_text(&viewer.text("output"), &output);
    events
}

fn epochs(events: &[StoredEvent]) -> Vec<u64> {
    let mut epochs: Vec<_> = events.iter().map(|event| event.id.epoch).collect();
    epochs.dedup();
    epochs
}

async fn flush(stack: &Stack) {
    let mut redis = stack.redis.connection().await;
    let () = redis::cmd("FLUSHALL")
        .query_async(&mut redis)
        .await
        .expect("FLUSHALL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_redis_costs_only_a_resend() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("flushed").await.id;
    let command = ticking(TICK_COUNT, "0.02");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    let viewer = tokio::spawn(Viewer::new(stack.api(), run).until_the_end());

    // Some events are only in Redis when it is flushed; their producer still has them.
    stack.database.wait_stored_events(run, 20).await;
    stack.stop(Service::Persister).await;
    let stored = stack.database.run(run).await.events;
    let seen = Viewer::new(stack.api(), run).until(|event| event["text"] == "tick 100\n");
    seen.await;
    assert!(stored < 100, "the persister must stop before tick 100");
    flush(&stack).await;
    stack.start_service(Service::Persister).await;

    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let viewer = viewer.await.expect("the viewer's task");
    let events = assert_whole(&stack, run, &viewer).await;
    let epochs = epochs(&events);
    assert!(
        epochs.len() >= 2 && epochs.is_sorted(),
        "a larger epoch after the flush: {epochs:?}"
    );
    assert!(
        viewer.gaps.iter().any(|reason| reason == "reborn"),
        "{:?}",
        viewer.gaps
    );
    assert!(
        viewer.gaps.iter().all(|reason| reason == "reborn"),
        "{:?}",
        viewer.gaps
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_under_busy_persister_loses_nothing() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("flushed twice").await.id;
    let command = ticking(TICK_COUNT, "0.02");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    let viewer = tokio::spawn(Viewer::new(stack.api(), run).until_the_end());
    for count in [50, 150] {
        stack.database.wait_stored_events(run, count).await;
        flush(&stack).await;
    }
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let viewer = viewer.await.expect("the viewer's task");
    let events = assert_whole(&stack, run, &viewer).await;
    assert_eq!(epochs(&events).len(), 3, "{:?}", epochs(&events));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_restarted_redis_is_refilled() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("restarted").await.id;
    let command = ticking(TICK_COUNT, "0.02");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    let viewer = tokio::spawn(Viewer::new(stack.api(), run).until_the_end());
    stack.database.wait_stored_events(run, 50).await;
    stack.redis.restart().await;
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let viewer = viewer.await.expect("the viewer's task");
    assert_whole(&stack, run, &viewer).await;
}
