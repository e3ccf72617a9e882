//! A publisher with a Redis client of its own writes whatever bytes it likes. Its own run may
//! suffer; a witness, another run that publishes and is watched meanwhile, notices nothing.
//!
//! This file: the witness, lies on the channel of wake-ups, and events with fields of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use reqwest::Method;
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::Keys;
use runcast_tests::api::{Api, CreatedRun, send};
use runcast_tests::database::{assert_each_once, text};
use runcast_tests::event_lines::{numbered_lines, output_line};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, within};
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::fixtures::assert_calm;

/// Between two lines of the witness.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest that a line of the witness may take to its viewer while the attack runs.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// A run that publishes and is watched while another one attacks.
pub(super) struct Witness {
    run: CreatedRun,
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<(Vec<Instant>, EventId)>,
    watching: JoinHandle<Vec<(String, Instant)>>,
}

impl Witness {
    pub(super) async fn start(stack: &Stack) -> Self {
        let run = stack.api().create_run("witness").await;
        let mut viewer = stack.api().watch(run.id, None).await;
        let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let publishing = tokio::spawn(async move {
            let (mut sent, mut last) = (Vec::new(), EventId::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let line = output_line(&format!("line {}\n", sent.len() + 1));
                sent.push(Instant::now());
                last = publish(&mut publisher, line).await;
                sleep(PAUSE).await;
            }
            publish(&mut publisher, output_line("the end\n")).await;
            (sent, last.next())
        });
        let watching = tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                let frame = viewer.next().await;
                assert_ne!(frame.event, "gap", "{frame:?}");
                assert_ne!(frame.event, "degraded", "{frame:?}");
                if frame.event != "output" {
                    continue;
                }
                let text = frame.json()["text"].as_str().expect("a text").to_owned();
                if text == "the end\n" {
                    return seen;
                }
                seen.push((text, Instant::now()));
            }
        });
        Self {
            run,
            stop,
            publishing,
            watching,
        }
    }

    /// The partition of its run.
    pub(super) fn partition(&self) -> usize {
        Keys::partition(self.run.id)
    }

    /// Its run.
    pub(super) fn run(&self) -> Uuid {
        self.run.id
    }

    /// Ends the run. Nothing of it is lost, doubled or late, for its viewer and in Postgres.
    pub(super) async fn assert_unharmed(self, stack: &Stack) {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, last) = self.publishing.await.expect("the witness publishes");
        let seen = within(WAIT_DEADLINE, "the witness sees its end", self.watching).await;
        let seen = seen.expect("the witness is watched");
        let expected = |number: usize| format!("line {}\n", number + 1);
        assert_eq!(seen.len(), sent.len(), "lines that were seen and sent");
        for (number, ((text, at), sent)) in seen.iter().zip(&sent).enumerate() {
            assert_eq!(*text, expected(number));
            let delay = at.duration_since(*sent);
            assert!(delay < MAX_DELAY, "line {} took {delay:?}", number + 1);
        }
        stack.database.wait_stored(self.run.id, last).await;
        let events = stack.database.events(self.run.id).await;
        assert_each_once(&events);
        let all: String = (0..sent.len()).map(expected).collect();
        let stored = String::from_utf8(text(&events, Kind::Output)).expect("text");
        assert_eq!(stored, all + "the end\n");
    }
}

/// Publishes a line, again if Redis takes long to answer: large commands of the attacker occupy it.
async fn publish(publisher: &mut Publisher, line: Vec<u8>) -> EventId {
    let (lines, deadline) = ([line], Instant::now() + WAIT_DEADLINE);
    loop {
        match publisher.publish_if_room(&lines).await {
            Ok(last) => return last,
            Err(error) => assert!(Instant::now() < deadline, "the witness: {error}"),
        }
    }
}

/// A counter of a service that listens at `metrics`.
pub(super) async fn counter(metrics: &str, name: &str) -> u64 {
    let response = send(Api::new(metrics, "").anonymous(Method::GET, "")).await;
    let body = response.text().await.expect("the metrics");
    let line = body
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("no {name} in {body}"));
    line.parse().expect("a number")
}

/// Lets a service serve its metrics; returns their address. Takes effect when it starts.
pub(super) fn with_metrics(stack: &mut Stack, service: Service) -> String {
    let port = runcast_tests::programs::free_port();
    stack.set(
        service,
        "RUNCAST_METRICS_LISTEN",
        format!("127.0.0.1:{port}"),
    );
    format!("http://127.0.0.1:{port}/metrics")
}

/// How many log lines of a service contain these words.
pub(super) fn log_lines(stack: &Stack, service: Service, words: &str) -> usize {
    let logs = stack.logs(service);
    logs.lines().filter(|line| line.contains(words)).count()
}

/// Runs a command with words as arguments.
pub(super) async fn command(redis: &mut MultiplexedConnection, words: &[&str]) -> redis::Value {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let reply = command.query_async(redis).await;
    reply.unwrap_or_else(|error| panic!("{words:.100?}: {error}"))
}

async fn bell(redis: &mut MultiplexedConnection, channel: &str, message: &[u8]) {
    let mut publish = redis::cmd("SPUBLISH");
    publish.arg(channel).arg(message);
    let () = publish.query_async(redis).await.expect("SPUBLISH");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_ups_that_lie_show_nothing_and_hide_nothing() {
    let mut stack = Stack::without_services().await;
    let metrics = with_metrics(&mut stack, Service::Gateway);
    stack.start_all().await;
    let witness = Witness::start(&stack).await;
    let run = stack.api().create_run("liar").await;
    let keys = stack.keys().run(run.id);
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut viewer = stack.api().watch(run.id, None).await;
    viewer.read_until("ready").await;
    let last = publisher.publish(&numbered_lines("true", 1..=2)).await;

    let mut redis = run.publisher_connection().await;
    let forged = String::from_utf8(output_line("forged\n")).expect("text");
    let entry = |id: EventId, body: &str| {
        format!(
            "{id}\np\n{}\nn\n3\nc\n1\nt\n9\nb\n{body}\n\n",
            publisher.producer
        )
    };
    let lies = [
        // The next event, which Redis does not hold, and one that does not continue the run.
        entry(last.next(), &forged).into_bytes(),
        entry(EventId::new(last.epoch, last.seq + 9), &forged).into_bytes(),
        entry(EventId::new(last.epoch + 1, 1), &forged).into_bytes(),
        // One that Redis holds, with another body.
        entry(last, &forged).into_bytes(),
        entry(last.next(), "no event").into_bytes(),
        b"9007199254740991-9007199254740991".to_vec(),
        b"18446744073709551615-18446744073709551615".to_vec(),
        b"\xff\xfe\0 \r\n\r\n".to_vec(),
        b"".to_vec(),
        b"sealed".to_vec(),
        vec![b'9'; 1024 * 1024],
    ];
    for lie in &lies {
        bell(&mut redis, &keys.wakeups, lie).await;
    }
    let mut flood = redis::pipe();
    for number in 0..5000 {
        let id = EventId::new(last.epoch, last.seq + 1000 + number);
        flood.cmd("SPUBLISH").arg(&keys.wakeups).arg(id.to_string());
    }
    let () = flood.exec_async(&mut redis).await.expect("a flood");
    eventually("lies are counted", async || {
        let count = counter(&metrics, "runcast_viewers_false_wakeups_total").await;
        (count > 0).then_some(()).ok_or_else(|| count.to_string())
    })
    .await;

    // What the run really publishes is seen, each once and under its own id.
    publisher.publish(&numbered_lines("true", 3..=4)).await;
    for number in 1..=4 {
        let frame = viewer.next().await;
        assert_eq!(frame.event, "output", "{frame:?}");
        assert_eq!(frame.json()["text"], format!("true {number}\n"));
        assert_eq!(frame.id, EventId::new(last.epoch, number));
    }
    witness.assert_unharmed(&stack).await;
    assert_calm(&stack);
}

/// All frames or events of an answer as text: each line that holds JSON.
async fn lines_of(stack: &Stack, path: &str, count: usize) -> Vec<String> {
    let mut response = send(stack.api().request(Method::GET, path)).await;
    let mut text = String::new();
    within(WAIT_DEADLINE, "the answer", async {
        loop {
            let lines: Vec<String> = text
                .lines()
                .map(|line| line.strip_prefix("data: ").unwrap_or(line))
                .filter(|line| line.starts_with('{') && line.contains("claims"))
                .map(str::to_owned)
                .collect();
            match response.chunk().await.expect("the answer") {
                Some(bytes) if lines.len() < count => {
                    text += std::str::from_utf8(&bytes).expect("text");
                }
                _ => return lines,
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_the_server_are_the_servers_alone() {
    let stack = Stack::start().await;
    let (run, other) = (
        stack.api().create_run("claims").await,
        stack.api().create_run("other").await.id,
    );
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let lines = [
        format!(
            r#"{{"kind":"log","text":"claims 1","run":"{other}","id":"1-1","producer":"{other}","seq":7}}"#
        ),
        format!(
            r#"{{"\u0072un":"{other}","kind":"log","text":"claims 2","run":"{other}","seq":[1]}}"#
        ),
    ];
    let lines = lines.map(String::into_bytes);
    let last = publisher.publish(&lines).await;
    stack.database.wait_stored(run.id, last).await;
    let stored = stack.database.events(run.id).await;
    assert_eq!(
        stored[0].body, lines[0],
        "Postgres holds what was published"
    );

    let id = run.id;
    for (path, names_run) in [
        (format!("/v1/runs/{id}/stream"), false),
        (format!("/v1/watch?run={id}&run={other}"), true),
        (format!("/v1/runs/{id}/events?format=ndjson"), false),
        (format!("/v1/runs/{id}/events"), false),
    ] {
        let found = lines_of(&stack, &path, 2).await;
        for line in &found {
            let times = |name: &str| line.matches(&format!("\"{name}\":")).count();
            assert_eq!(
                times("run"),
                usize::from(names_run) * times("text"),
                "{path}: {line}"
            );
            assert!(!line.contains(&other.to_string()), "{path}: {line}");
            assert!(!line.contains("u0072"), "{path}: {line}");
            assert_eq!(times("id"), times("text"), "{path}: {line}");
            assert_eq!(times("seq"), times("text"), "{path}: {line}");
        }
        if names_run {
            let event: Value = serde_json::from_str(&found[0]).expect("JSON");
            assert_eq!(event["run"], id.to_string());
            assert_eq!(event["producer"], publisher.producer.to_string());
            assert_eq!(event["seq"], 1);
        }
        assert!(!found.is_empty(), "{path}");
    }
    assert_calm(&stack);
}
