//! Signs of life, against a real Redis: whoever is busy is not dead, and whoever has ended is not alive.

mod support;

use std::time::{Duration, Instant};

use runcast_agent::publisher::{Options, Publisher};
use runcast_common::presence::heartbeat::{self, AgentReport, Health};
use runcast_common::protocol::keys::{Keys, Slot};
use runcast_common::redis;
use support::{PATIENCE, Run, Server, eventually};

fn quick() -> Options {
    Options {
        pulse: Duration::from_millis(50),
        ..Options::default()
    }
}

async fn agents(run: &Run) -> Vec<AgentReport> {
    let known = heartbeat::agents_of(&run.redis, &Keys::new("test:"), &run.keys).await;
    known.expect("Redis answers")
}

#[tokio::test]
async fn a_starved_runtime_does_not_look_dead() {
    let server = Server::start().await;
    let target = server.restricted().await;
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, quick()).expect("started");
    publisher.output("hello\n").await.expect("published");
    publisher.flush(PATIENCE).await.expect("flushed");
    eventually("a pulse", async || !agents(&run).await.is_empty()).await;

    // Nothing of this runtime runs from here on, and all the same each pulse is younger than the one before.
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
            .expect("a pulse");
        let pulse: heartbeat::Heartbeat = serde_json::from_str(&text).expect("JSON");
        if times.last() != Some(&pulse.time) {
            times.push(pulse.time);
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
    let pulse = known.pulse.expect("a pulse");
    assert_eq!((pulse.published, pulse.unstored), (1, 1));
    assert!(pulse.quiet_ms.is_some_and(|quiet| quiet > 0), "{pulse:?}");
    assert!(pulse.rss.is_some_and(|rss| rss > 1_000_000), "{pulse:?}");
    assert!(pulse.cpu.is_some(), "{pulse:?}");
}

#[tokio::test]
async fn a_publisher_that_has_ended_gives_no_sign() {
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
    eventually("a pulse", exists).await;
    publisher.close(Duration::ZERO).await.expect("closed");
    // A pulse that was on its way may still arrive; after that there is none.
    eventually("silence", async || {
        let _: u64 = run
            .redis
            .query(Slot::of(&key), redis::cmd("DEL").arg(&key))
            .await
            .expect("an answer");
        tokio::time::sleep(quick().pulse * 6).await;
        !exists().await
    })
    .await;
}
