//! Processes that die in the middle of their work: nothing is stored twice or lost.

use runcast_common::protocol::event::Kind;
use runcast_tests::database::text;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::shell_exit_code;
use runcast_tests::stack::{Service, Stack};

use crate::viewer::{Viewer, assert_text, numbers};

/// A command that prints `tick 1` to `tick <count>`, with a pause after each.
pub(crate) fn ticking(count: u32, pause: &str) -> [String; 3] {
    let script =
        format!("i=1; while [ $i -le {count} ]; do echo tick $i; i=$((i+1)); sleep {pause}; done");
    ["sh".to_owned(), "-c".to_owned(), script]
}

/// A run whose agent loses the replies to its next appends, from the first or from the tenth event
/// on.
async fn drop_replies(from_the_first: bool) {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("lost answers").await.id;
    let (chaos, (name, address), append) = stack.proxy_agent().await;
    if from_the_first {
        chaos.drop_replies(5, append);
    }
    let command = ticking(200, "0.02");
    let command = command.each_ref().map(String::as_str);
    let mut wrap = stack.wrap_with(run, &command, &[(name, &address)]);
    if !from_the_first {
        stack.database.wait_stored_events(run, 10).await;
        chaos.drop_replies(5, append);
    }
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    chaos.wait_for_hits(5).await;

    let output = numbers("tick", 1..=200);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    let viewer = Viewer::new(stack.api(), run).until_the_end().await;
    assert_text(&viewer.text("output"), &output);
    assert_eq!(viewer.repeated, 0, "a resend must not get a second id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_with_lost_reply_is_stored_once() {
    drop_replies(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_with_lost_first_reply_still_publishes() {
    drop_replies(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persister_killed_before_acknowledge_stores_once() {
    let settle = redis::Script::new(include_str!("../../common/src/scripts/settle.lua"));
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_redis().await;
    chaos.block_requests(settle.get_hash().as_bytes());
    stack.set(
        Service::Persister,
        "REDIS_URL",
        stack.redis.url(chaos.port()),
    );
    for service in Service::ALL {
        stack.start_service(service).await;
    }
    let run = stack.api().create_run("half way").await.id;
    let mut wrap = stack.wrap(run, &["seq", "-f", "line %g", "1000"]);
    chaos.wait_for_hits(1).await;

    // Postgres has committed, but Redis is not informed yet.
    let stored = stack.database.run(run).await;
    assert!(stored.events > 0, "{stored:?}");
    let mut redis = stack.redis.connection().await;
    let mut command = redis::cmd("HGET");
    command.arg(stack.keys().run(run).meta).arg("watermark");
    let received: Option<String> = command
        .query_async(&mut redis)
        .await
        .expect("the meta hash");
    assert_eq!(
        received, None,
        "Redis was settled before the persister was killed"
    );

    stack.kill(Service::Persister);
    stack.unset(Service::Persister, "REDIS_URL");
    stack.start_service(Service::Persister).await;
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let output = numbers("line", 1..=1000);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    let viewer = Viewer::new(stack.api(), run).until_the_end().await;
    assert_text(&viewer.text("output"), &output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_persister_and_gateway_lose_nothing() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("killed").await.id;
    let command = ticking(400, "0.01");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    let viewer = tokio::spawn(Viewer::new(stack.api(), run).until_the_end());

    stack.database.wait_stored_events(run, 20).await;
    stack.kill(Service::Persister);
    let seen = Viewer::new(stack.api(), run).until(|event| event["text"] == "tick 100\n");
    seen.await;
    stack.kill(Service::Gateway);
    stack.start_service(Service::Persister).await;
    stack.start_service(Service::Gateway).await;
    stack.database.wait_stored_events(run, 150).await;
    stack.kill(Service::Gateway);
    stack.kill(Service::Worker);
    stack.start_service(Service::Gateway).await;
    stack.start_service(Service::Worker).await;

    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let output = numbers("tick", 1..=400);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    let viewer = viewer.await.expect("the viewer's task");
    assert!(viewer.connections > 1, "the viewer must lose its gateway");
    assert_text(&viewer.text("output"), &output);
    assert_eq!(
        (viewer.repeated, viewer.gaps.len()),
        (0, 0),
        "{:?}",
        viewer.gaps
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_persisters_store_each_event_once() {
    let mut stack = Stack::start().await;
    // A second persister, as in a deployment with two replicas; it ends with this story.
    let second = stack.folder().join("second");
    std::fs::create_dir(&second).expect("a folder for its logs");
    let mut other = stack.service_spec(Service::Persister).start(&second);
    other
        .wait_for_line("Runcast persister is ready", WAIT_DEADLINE)
        .await;
    let run = stack.api().create_run("shared work").await.id;
    let command = ticking(300, "0.005");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    stack.database.wait_stored_events(run, 50).await;
    other.kill();
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &numbers("tick", 1..=300));
}
