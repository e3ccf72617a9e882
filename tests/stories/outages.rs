//! Servers that are unreachable for a while: publishing and watching continue, and everything is
//! stored in the end.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::protocol::event::Kind;
use runcast_tests::database::text;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::postgres::{Durability, PostgresServer};
use runcast_tests::process::shell_exit_code;
use runcast_tests::sse::Sse;
use runcast_tests::stack::{Service, Stack};

use crate::crashes::ticking;
use crate::viewer::{Viewer, assert_text, numbers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_viewers_continue_and_storing_catches_up() {
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_postgres().await;
    let address = stack.database_url(chaos.port());
    for service in Service::ALL {
        stack.set(service, "DATABASE_URL", address.clone());
        stack.start_service(service).await;
    }
    let run = stack.api().create_run("no postgres").await.id;
    let command = ticking(300, "0.02");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    let mut live = stack.api().watch(run, None).await;
    read_until_text(&mut live, "tick 20\n").await;
    stack.database.wait_stored_events(run, 10).await;
    chaos.refuse();
    let stored = stack.database.run(run).await.events;
    read_until_text(&mut live, "tick 150\n").await;
    let now = stack.database.run(run).await.events;
    assert!(
        now < 100,
        "{stored} were stored before Postgres was cut off, and {now} after"
    );
    chaos.forward();
    live.read_until("end").await;

    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let output = numbers("tick", 1..=300);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    let late = Viewer::new(stack.api(), run).until_the_end().await;
    assert_text(&late.text("output"), &output);
}

/// Reads a stream up to the event with this text.
async fn read_until_text(stream: &mut Sse, text: &str) {
    while stream.next().await.json()["text"] != text {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_redis_connection_times_out() {
    let mut stack = Stack::without_services().await;
    let chaos = stack.proxy_redis().await;
    let address = stack.redis.url(chaos.port());
    for service in Service::ALL {
        stack.set(service, "REDIS_URL", address.clone());
        stack.start_service(service).await;
    }
    let run = stack.api().create_run("half open").await.id;
    let command = ticking(200, "0.02");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    let mut live = stack.api().watch(run, None).await;
    read_until_text(&mut live, "tick 20\n").await;
    // Existing connections stay silent for ever; new ones work.
    chaos.half_open();
    chaos.forward();
    live.read_until("end").await;
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let output = numbers("tick", 1..=200);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_restart_is_invisible_to_viewers() {
    let mut stack =
        Stack::with_postgres(Arc::new(PostgresServer::start(Durability::Fsync).await)).await;
    stack.start_all().await;
    let run = stack.api().create_run("restarted").await.id;
    let command = ticking(400, "0.02");
    let mut wrap = stack.wrap(run, &command.each_ref().map(String::as_str));
    let viewer = tokio::spawn(Viewer::new(stack.api(), run).until_the_end());
    // A fast stop, an immediate stop, and a crash.
    for (events, signal) in [
        (20, Signal::SIGINT),
        (80, Signal::SIGQUIT),
        (140, Signal::SIGKILL),
    ] {
        stack.database.wait_stored_events(run, events).await;
        stack
            .postgres
            .restart(signal, Duration::from_millis(500))
            .await;
    }
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let output = numbers("tick", 1..=400);
    let events = stack.database.wait_sealed(run).await;
    assert_text(&text(&events, Kind::Output), &output);
    let viewer = viewer.await.expect("the viewer's task");
    assert_text(&viewer.text("output"), &output);
    assert_eq!((viewer.connections, viewer.repeated), (1, 0));
    assert_eq!(viewer.gaps, [""; 0]);
}
