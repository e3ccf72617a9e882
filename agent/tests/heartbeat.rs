//! Heartbeats against a real Redis: a busy process counts as alive, a process that has ended does
//! not.

mod support;

use std::time::{Duration, Instant};

use runcast_common::presence::heartbeat::{self, AgentReport, Health};
use runcast_common::protocol::keys::{Keys, Slot};
use runcast_common::redis;
use runcast_publisher::{Options, Publisher};
use support::{PATIENCE, Run, Server, eventually};

fn quick() -> Options {
    Options {
        heartbeat_interval: Duration::from_millis(50),
        ..Options::default()
    }
}

async fn agents(run: &Run) -> Vec<AgentReport> {
    let known = heartbeat::read_run_agents(&run.redis, &Keys::new("test:"), &run.keys).await;
    known.expect("Redis answers")
}

#[tokio::test]
async fn a_starved_runtime_counts_as_alive() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, quick()).expect("started");
    publisher.output("hello\n").await.expect("published");
    publisher.flush(PATIENCE).await.expect("flushed");
    eventually("a heartbeat", async || !agents(&run).await.is_empty()).await;

    // This runtime executes nothing from here on, and yet each heartbeat is newer than the one
    // before.
    let client = redis::Client::open(server.url()).expect("a client");
    let mut connection = client.get_connection().expect("a connection");
    let key = Keys::new("test:").heartbeat(publisher.producer().0);
    let mut times = Vec::new();
    let starved = Instant::now();
    while times.len() < 5 {
        assert!(starved.elapsed() < PATIENCE, "only {times:?}");
        let text: String = redis::cmd("GET")
            .arg(&key)
            .query(&mut connection)
            .expect("a heartbeat");
        let beat: heartbeat::Heartbeat = serde_json::from_str(&text).expect("JSON");
        if times.last() != Some(&beat.time) {
            times.push(beat.time);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(times.is_sorted(), "{times:?}");

    let [known] = agents(&run).await.try_into().expect("one agent");
    assert_eq!(
        (known.health, known.agent),
        (Health::Alive, publisher.producer().0)
    );
    assert_eq!(
        (known.about.run, known.about.pid),
        (target.run, std::process::id())
    );
    let beat = known.heartbeat.expect("a heartbeat");
    assert_eq!((beat.published, beat.unstored), (1, 1));
    assert!(beat.quiet_ms.is_some_and(|quiet| quiet > 0), "{beat:?}");
    assert!(beat.rss.is_some_and(|rss| rss > 1_000_000), "{beat:?}");
    assert!(beat.cpu.is_some(), "{beat:?}");
}

#[tokio::test]
async fn a_closed_publisher_sends_no_heartbeat() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, quick()).expect("started");
    let key = Keys::new("test:").heartbeat(publisher.producer().0);
    publisher.output("hello\n").await.expect("published");
    publisher.flush(PATIENCE).await.expect("flushed");
    let exists = async || {
        let exists: u64 = run
            .redis
            .query(Slot::of(&key), redis::cmd("EXISTS").arg(&key))
            .await
            .expect("an answer");
        exists == 1
    };
    eventually("a heartbeat", exists).await;
    publisher.close(Duration::ZERO).await.expect("closed");
    // A heartbeat that was on its way may still arrive; after that there is none.
    eventually("silence", async || {
        let _: u64 = run
            .redis
            .query(Slot::of(&key), redis::cmd("DEL").arg(&key))
            .await
            .expect("an answer");
        tokio::time::sleep(quick().heartbeat_interval * 6).await;
        !exists().await
    })
    .await;
}
