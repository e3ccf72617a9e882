//! Heartbeats of a wrapped command, as a viewer and the API see them.

use nix::sys::signal::Signal;
use runcast_common::protocol::event::Kind;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::stack::Stack;
use serde_json::Value;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_receives_heartbeats_with_resource_usage() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("alive").await.id;
    let mut wrap = stack.wrap(run, &["sh", "-c", "echo hello; exec sleep 60"]);
    wrap.wait_for_line("hello", WAIT_DEADLINE).await;

    let mut viewer = stack.api().watch(run, None).await.with_heartbeats();
    // The first two: the second reports the CPU time used since the first.
    let mut heartbeats: Vec<Value> = Vec::new();
    let mut last = None;
    while heartbeats.len() < 2 {
        let frame = viewer.next_before(Instant::now() + WAIT_DEADLINE).await;
        let frame = frame.expect("in time").expect("the stream continues");
        if frame.event == "heartbeat" {
            assert_eq!(Some(frame.id), last, "a heartbeat moves no cursor");
            heartbeats.push(frame.json());
        }
        last = Some(frame.id);
    }
    let beat = &heartbeats[1];
    assert_eq!(
        (&beat["kind"], &beat["variation"]),
        (&"heartbeat".into(), &0.into())
    );
    assert_eq!(beat["published"], 2, "{beat}");
    assert!(beat["rss"].as_u64() > Some(1_000_000), "{beat}");
    assert!(beat["cpu"].is_number(), "{beat}");

    let agents = stack.api().get(&format!("/v1/runs/{run}/agents")).await;
    let [agent] = agents["agents"].as_array().expect("a list").as_slice() else {
        panic!("one agent: {agents}")
    };
    assert_eq!(agent["agent"], beat["agent"]);
    assert_eq!(
        (&agent["health"], &agent["run"]),
        (&"alive".into(), &run.to_string().into())
    );

    // Heartbeats are ephemeral: none is stored.
    wrap.signal(Signal::SIGTERM);
    wrap.wait_exit(WAIT_DEADLINE).await;
    let events = stack.database.wait_sealed(run).await;
    assert!(
        events
            .iter()
            .all(|event| event.kind != Kind::Heartbeat.number())
    );
}
