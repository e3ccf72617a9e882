//! Agents that fall silent are marked lost, and come back.

use std::time::Duration;

use futures::StreamExt as _;
use nix::sys::signal::Signal;
use runcast_common::connect::Redis;
use runcast_common::presence::heartbeat::{self, Agent, Heartbeat};
use runcast_common::presence::run_update::RunUpdate;
use runcast_common::protocol::event::{self, Kind};
use runcast_tests::api::{problem, send};
use runcast_tests::event_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually_within, within};
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::Sse;
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

/// Silence counts after 10 s of watching, lasts 10 s, and is checked every second.
const LOSS_DEADLINE: Duration = Duration::from_secs(60);

/// A stack whose worker treats silence as loss sooner than usual: agents send a heartbeat every 5
/// s.
async fn start_with_short_silence() -> Stack {
    let mut stack = Stack::without_services().await;
    stack.set(Service::Worker, "RUNCAST_STALE_AFTER", "8s");
    stack.set(Service::Worker, "RUNCAST_LOST_AFTER", "10s");
    stack.start_all().await;
    stack
}

async fn wait_for_status(stack: &Stack, run: Uuid, status: &str) {
    let what = format!("the run is {status}");
    eventually_within(LOSS_DEADLINE, &what, async || {
        let described = stack.api().run(run).await;
        let statuses = [&described["status"], &described["variations"][0]["status"]];
        if statuses.iter().all(|&seen| seen == status) {
            Ok(())
        } else {
            Err(format!("{statuses:?}"))
        }
    })
    .await;
}

async fn agents(stack: &Stack, query: &str) -> Vec<Value> {
    let list = stack.api().get(&format!("/v1/agents?{query}")).await;
    list["agents"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_is_lost_while_its_agent_is_silent() {
    let mut stack = start_with_short_silence().await;
    let run = stack.api().create_run("silent").await.id;
    let script = "echo here; while [ ! -e done ]; do sleep 0.1; done";
    let mut wrap = stack.wrap(run, &["sh", "-c", script]);
    wrap.wait_for_line("here", WAIT_DEADLINE).await;
    wait_for_status(&stack, run, "running").await;

    wrap.signal(Signal::SIGSTOP);
    wait_for_status(&stack, run, "lost").await;
    let [lost] = &agents(&stack, "health=lost").await[..] else {
        panic!("one lost agent")
    };
    assert_eq!(lost["run"], run.to_string());

    wrap.signal(Signal::SIGCONT);
    wait_for_status(&stack, run, "running").await;
    assert_eq!(agents(&stack, "health=alive").await.len(), 1);

    std::fs::write(stack.folder().join("done"), "").expect("a file");
    wrap.wait_exit(WAIT_DEADLINE).await;
    wait_for_status(&stack, run, "succeeded").await;
    stack.database.wait_sealed(run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_agent_is_lost_and_successor_ends_run() {
    let mut stack = start_with_short_silence().await;
    let run = stack.api().create_run("killed").await.id;
    let mut first = stack.wrap(run, &["sh", "-c", "echo here; exec sleep 60"]);
    first.wait_for_line("here", WAIT_DEADLINE).await;
    wait_for_status(&stack, run, "running").await;
    first.kill();
    wait_for_status(&stack, run, "lost").await;
    // A status that is stored late does not revive it.
    let late = format!("UPDATE variations SET status = 'running' WHERE run_id = '{run}'");
    stack.database.execute(&late).await;
    wait_for_status(&stack, run, "lost").await;

    let mut second = stack.wrap(run, &["sh", "-c", "echo there; sleep 12"]);
    second.wait_for_line("there", WAIT_DEADLINE).await;
    wait_for_status(&stack, run, "running").await;
    second.wait_exit(WAIT_DEADLINE).await;
    wait_for_status(&stack, run, "succeeded").await;
    let lost = agents(&stack, "health=lost").await;
    assert_eq!(lost.len(), 1, "the first stays lost: {lost:?}");
}

/// A heartbeat of an agent that publishes by itself.
async fn send_heartbeat(stack: &Stack, redis: &Redis, run: Uuid, agent: Uuid) {
    let about = Agent {
        run,
        variation: 0,
        host: "story".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        started: event::now_ms(),
    };
    let beat = Heartbeat {
        kind: Kind::Heartbeat,
        variation: 0,
        time: event::now_ms(),
        agent,
        published: 0,
        unstored: 0,
        quiet_ms: None,
        rss: None,
        cpu: None,
    };
    let keys = stack.keys();
    let beaten = heartbeat::send(redis, keys, &keys.run(run), &about, &beat).await;
    beaten.expect("a heartbeat");
}

/// Waits for an update of the run with this status and this health of its agent.
async fn wait_for_update(viewer: &mut Sse, status: &str, health: &str) {
    let deadline = Instant::now() + LOSS_DEADLINE;
    loop {
        let frame = viewer.next_before(deadline).await.expect("in time");
        let frame = frame.expect("the stream continues");
        if frame.event != "state" {
            continue;
        }
        let update = frame.json();
        if update["status"] == status && update["agents"][0]["health"] == health {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_revives_a_lost_run_and_notifies_viewers() {
    let mut stack = start_with_short_silence().await;
    let run = stack.api().create_run("found").await;
    let url = stack.redis.url(stack.redis.port()).parse().expect("a URL");
    let shared = Redis::new(&url).expect("a Redis");
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut viewer = stack.api().watch(run.id, None).await.with_heartbeats();
    let client = redis::Client::open(stack.redis.url(stack.redis.port())).expect("a URL");
    let mut updates = client.get_async_pubsub().await.expect("a subscription");
    let channel = stack.keys().updates();
    updates.subscribe(channel).await.expect("a subscription");

    send_heartbeat(&stack, &shared, run.id, publisher.producer).await;
    eventually_within(WAIT_DEADLINE, "the agent is known", async || {
        let count = agents(&stack, "health=alive").await.len();
        (count == 1).then_some(()).ok_or(format!("{count}"))
    })
    .await;
    // Published while it lived, but stored after it was lost: that does not revive it.
    stack.stop(Service::Persister).await;
    let early = publisher
        .publish(&[event_lines::output_line("early\n")])
        .await;
    wait_for_update(&mut viewer, "lost", "lost").await;
    wait_for_status(&stack, run.id, "lost").await;
    stack.start_service(Service::Persister).await;
    stack.database.wait_stored(run.id, early).await;
    assert_eq!(stack.database.run(run.id).await.status, "lost");

    // No heartbeat, but this event.
    let late = publisher
        .publish(&[event_lines::output_line("late\n")])
        .await;
    wait_for_update(&mut viewer, "pending", "alive").await;
    stack.database.wait_stored(run.id, late).await;
    wait_for_status(&stack, run.id, "pending").await;
    // Its silence counts again.
    wait_for_update(&mut viewer, "pending", "stale").await;
    wait_for_update(&mut viewer, "lost", "lost").await;

    let mut statuses = Vec::new();
    let mut messages = updates.on_message();
    while statuses.len() < 3 {
        let message = within(WAIT_DEADLINE, "updates come", messages.next()).await;
        let payload: String = message.expect("a message").get_payload().expect("text");
        let updates: Vec<RunUpdate> = serde_json::from_str(&payload).expect("updates");
        let of_run = updates.into_iter().filter(|one| one.run == run.id);
        for update in of_run {
            if statuses.last() != Some(&update.status) {
                statuses.push(update.status);
            }
        }
    }
    assert_eq!(statuses, ["pending", "lost", "pending"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_list_is_paged_and_validates_queries() {
    let mut stack = Stack::start().await;
    let mut wraps = Vec::new();
    for name in ["one", "two", "three"] {
        let run = stack.api().create_run(name).await.id;
        wraps.push(stack.wrap(run, &["sleep", "60"]));
    }
    eventually_within(WAIT_DEADLINE, "three agents", async || {
        let count = agents(&stack, "health=alive").await.len();
        (count == 3).then_some(()).ok_or(format!("{count}"))
    })
    .await;
    let page = stack.api().get("/v1/agents?limit=2").await;
    assert_eq!(page["agents"].as_array().map(Vec::len), Some(2));
    let next = page["next"].as_str().expect("a next page");
    let rest = agents(&stack, &format!("before={next}")).await;
    assert_eq!(rest.len(), 1);
    let request = stack
        .api()
        .request(reqwest::Method::GET, "/v1/agents?health=fine");
    let detail = problem(send(request).await, reqwest::StatusCode::BAD_REQUEST).await;
    assert!(detail.contains("alive, stale, lost, ended"), "{detail}");
    for mut wrap in wraps {
        wrap.signal(Signal::SIGTERM);
        wrap.wait_exit(WAIT_DEADLINE).await;
    }
}
