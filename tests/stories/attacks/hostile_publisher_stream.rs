//! A hostile publisher writes to the stream and the meta of its run by itself. The run has dead
//! letters and gaps, and goes on.

use redis::aio::MultiplexedConnection;
use reqwest::{Method, StatusCode};
use runcast_common::protocol::encoding::{Body, MAX_BODY_BYTES};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::MAX_STREAM_ENTRY_BYTES;
use runcast_tests::api::{CreatedRun, send};
use runcast_tests::event_lines::{numbered_lines, output_line};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::Sse;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::fixtures::assert_calm;
use super::hostile_publisher::{Witness, command, counter, log_lines, with_metrics};

const TOP: &str = "18446744073709551615-18446744073709551615";

/// A run under attack by its own publisher.
struct Victim {
    run: CreatedRun,
    keys: RunKeys,
    publisher: Publisher,
    redis: MultiplexedConnection,
}

impl Victim {
    async fn new(stack: &Stack, name: &str) -> Self {
        let run = stack.api().create_run(name).await;
        let connection = run.publisher_connection().await;
        let mut redis = stack.redis.connection().await;
        // Sending 64 MiB takes a while.
        redis.set_response_timeout(WAIT_DEADLINE);
        Self {
            keys: stack.keys().run(run.id),
            publisher: Publisher::new(connection, stack.keys(), run.id),
            redis,
            run,
        }
    }

    async fn publish(&mut self, word: &str, count: u64) -> EventId {
        self.publisher
            .publish(&numbered_lines(word, 1..=count))
            .await
    }

    /// Adds an entry without the append script, and makes it the run's last one.
    async fn add(&mut self, id: &str, fields: &[(&str, &[u8])]) {
        let (epoch, seq) = id.split_once('-').expect("an id");
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline
            .cmd("XADD")
            .arg(&self.keys.stream)
            .arg(id)
            .arg(fields);
        pipeline.cmd("HSET").arg(&self.keys.meta);
        pipeline.arg("epoch").arg(epoch).arg("seq").arg(seq);
        let () = pipeline.exec_async(&mut self.redis).await.expect("XADD");
    }

    /// Publishes until Redis takes it: a producer's own agent tries again too.
    async fn publish_after(&mut self, name: &str, word: &str) -> EventId {
        let line = output_line(&format!("{word}\n"));
        let deadline = Instant::now() + WAIT_DEADLINE;
        loop {
            let appended = self
                .publisher
                .publish_if_room(std::slice::from_ref(&line))
                .await;
            match appended {
                Ok(last) => return last,
                Err(error) if Instant::now() > deadline => panic!("{name}: {error}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }
}

/// All frames until one holds this text.
async fn read_until_text(stream: &mut Sse, text: &str) -> Vec<Value> {
    let deadline = Instant::now() + WAIT_DEADLINE;
    let mut frames = Vec::new();
    loop {
        let frame = timeout_at(deadline, stream.next()).await;
        let frame = frame.unwrap_or_else(|_| panic!("no {text:?} after {frames:?}"));
        let data = frame.json();
        let is_found = data["text"] == text;
        frames.push(data);
        if is_found {
            return frames;
        }
    }
}

fn gaps(frames: &[Value]) -> Vec<&Value> {
    frames.iter().filter(|data| data["kind"] == "gap").collect()
}

/// Names and values of an entry.
type Fields = Vec<(&'static str, Vec<u8>)>;

/// Entries none of which the append script writes.
fn absurd_entries() -> Vec<Fields> {
    let producer = Uuid::now_v7().to_string();
    let line = [output_line("x\n"), b"\n".to_vec()].concat();
    let bomb = zstd_of(&vec![b'\n'; 64 * 1024 * 1024]);
    let many = zstd_of(&line.repeat(512));
    let good: [(&str, &[u8]); 5] = [
        ("p", producer.as_bytes()),
        ("n", b"1"),
        ("c", b"1"),
        ("t", b"9"),
        ("b", &line),
    ];
    let with = |name: &'static str, value: &'static [u8]| {
        let mut fields = good.to_vec();
        let field = fields.iter_mut().find(|(field, _)| *field == name);
        *field.expect("a field") = (name, value);
        fields
    };
    let body = |name: &'static str, body: &[u8]| -> Vec<(&'static str, Vec<u8>)> {
        let mut fields: Vec<_> = good[..4]
            .iter()
            .map(|(name, value)| (*name, value.to_vec()))
            .collect();
        fields.push((name, body.to_vec()));
        fields
    };
    let mut entries: Vec<Fields> = Vec::new();
    for missing in 0..good.len() {
        let mut fields = good.to_vec();
        fields.remove(missing);
        entries.push(owned(&fields));
    }
    for count in [
        &b"0"[..],
        b"-1",
        b"2",
        b"9007199254740992",
        b"x",
        b"1e3",
        b"nan",
        b"1.5",
    ] {
        let mut fields = owned(&good);
        fields[2].1 = count.to_vec();
        entries.push(fields);
    }
    entries.push(owned(&with("n", b"0")));
    entries.push(owned(&with("n", b"18446744073709551615")));
    entries.push(owned(&with("p", b"me")));
    entries.push(owned(&[&good[..], &[("c", b"7")]].concat()));
    entries.push((0..2000).map(|_| ("x", b"y".to_vec())).collect());
    entries.push(body("b", &vec![b'x'; 64 * 1024 * 1024]));
    entries.push(body("b", &vec![b'\n'; MAX_BODY_BYTES]));
    entries.push(body("z", &bomb));
    entries.push(body("z", &many));
    entries.push(body("z", &many[..many.len() / 2]));
    entries.push(body("z", b"\xff\0"));
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_entries_become_dead_letters_and_gaps() {
    let mut stack = Stack::without_services().await;
    let metrics = with_metrics(&mut stack, Service::Persister);
    stack.start_all().await;
    let witness = Witness::start(&stack).await;
    let entries = absurd_entries();
    let mut victim = Victim::new(&stack, "absurd entries").await;
    let mut viewer = stack.api().watch(victim.run.id, None).await;
    let first = victim.publish("before", 2).await;
    let count = entries.len() as u64;
    for (seq, fields) in (first.seq + 1..).zip(&entries) {
        let fields: Vec<(&str, &[u8])> = fields
            .iter()
            .map(|(name, value)| (*name, &value[..]))
            .collect();
        let id = EventId::new(first.epoch, seq).to_string();
        victim.add(&id, &fields).await;
    }
    let last = victim.publish_after("absurd entries", "after").await;
    assert_eq!(last.seq, first.seq + count + 1);
    stack.database.wait_stored(victim.run.id, last).await;

    let letters = stack.database.dead_letters(victim.run.id).await;
    assert_eq!(
        letters.len() as u64,
        count,
        "{:?}",
        letters.iter().map(|one| &one.reason).collect::<Vec<_>>()
    );
    assert!(
        letters
            .iter()
            .all(|letter| letter.body.len() <= MAX_STREAM_ENTRY_BYTES)
    );
    assert!(
        letters
            .iter()
            .any(|letter| letter.reason.contains("over the limit of 2097152 bytes"))
    );
    let events = stack.database.events(victim.run.id).await;
    let stored_gaps = events
        .iter()
        .filter(|event| event.kind == Kind::Gap.number());
    assert_eq!(stored_gaps.count() as u64, count);
    let seen = read_until_text(&mut viewer, "after\n").await;
    assert_eq!(gaps(&seen).len() as u64, count, "{seen:?}");
    let mut late = stack.api().watch(victim.run.id, None).await;
    let seen = read_until_text(&mut late, "after\n").await;
    assert_eq!(gaps(&seen).len() as u64, count, "{seen:?}");
    let missing = counter(&metrics, "runcast_persister_missing_events_total").await;
    assert!(missing >= count, "{missing}");
    let lines = log_lines(
        &stack,
        Service::Persister,
        "events are missing in the stream",
    );
    assert!((1..=6).contains(&lines), "{lines} lines");
    witness.assert_unharmed(&stack).await;
    assert_calm(&stack);
}

fn owned(fields: &[(&'static str, &[u8])]) -> Fields {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (*name, value.to_vec()))
        .collect()
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    Body::compress(bytes).bytes().to_vec()
}

/// Damage that is done while no persister runs, and whether it is told as lost events.
const DAMAGES: &[(&str, bool)] = &[
    ("trimmed", true),
    ("trimmed, and no id is left", true),
    ("trimmed in part", true),
    ("an entry behind the last id", false),
    ("an entry behind the last id with an absurd one", false),
    ("an absurd last id in both", false),
    ("a last seq above 2^53 in both", false),
    ("epoch of meta", false),
    ("epoch and seq of meta", false),
    ("fractions in meta", false),
    ("numbers of meta", false),
    ("no meta", false),
    ("huge meta", false),
    ("meta of another type", false),
    ("stream of another type", true),
];

async fn damage(victim: &mut Victim, name: &str, last: EventId) {
    let (stream, meta) = (victim.keys.stream.clone(), victim.keys.meta.clone());
    let half = EventId::new(last.epoch, last.seq / 2 + 1).to_string();
    let above = format!("{}-9007199254740993", last.epoch);
    let huge = "9".repeat(1024 * 1024);
    let commands: Vec<Vec<&str>> = match name {
        "trimmed" => vec![vec!["XADD", &stream, "MAXLEN", "0", "*", "a", "b"]],
        "trimmed, and no id is left" => {
            vec![vec!["XADD", &stream, "MAXLEN", "0", TOP, "a", "b"]]
        }
        "trimmed in part" => vec![vec!["XTRIM", &stream, "MINID", &half]],
        "an entry behind the last id" => vec![vec!["XADD", &stream, "*", "a", "b"]],
        "an entry behind the last id with an absurd one" => {
            vec![vec!["XADD", &stream, TOP, "a", "b"]]
        }
        "an absurd last id in both" => {
            let number = "18446744073709551615";
            vec![
                vec!["XADD", &stream, TOP, "a", "b"],
                vec!["HSET", &meta, "epoch", number, "seq", number],
            ]
        }
        "a last seq above 2^53 in both" => vec![
            vec!["XADD", &stream, &above, "a", "b"],
            vec!["HSET", &meta, "seq", "9007199254740993"],
        ],
        "epoch of meta" => vec![vec!["HSET", &meta, "epoch", "99999999999999999999"]],
        "epoch and seq of meta" => vec![vec!["HSET", &meta, "epoch", "nan", "seq", "-1"]],
        "fractions in meta" => vec![vec!["HSET", &meta, "epoch", "1.5", "seq", "1e300"]],
        "numbers of meta" => vec![vec![
            "HSET",
            &meta,
            "bytes",
            "18446744073709551615",
            "freed",
            "-inf",
            "watermark",
            "9007199254740991-9007199254740991",
            "dirty",
            "x",
            "cap",
            "x",
        ]],
        "no meta" => vec![vec!["HDEL", &meta, "epoch", "seq"]],
        "huge meta" => vec![vec![
            "HSET",
            &meta,
            &huge,
            &huge,
            "watermark",
            &huge,
            "sealed",
            &huge,
            "epoch",
            &huge,
        ]],
        "meta of another type" => vec![vec!["SET", &meta, "x"]],
        "stream of another type" => vec![vec!["SET", &stream, "x"]],
        _ => panic!("{name}"),
    };
    for words in commands {
        command(&mut victim.redis, &words).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_stream_or_meta_is_told_and_the_run_goes_on() {
    let mut stack = Stack::without_services().await;
    let metrics = with_metrics(&mut stack, Service::Persister);
    stack.start_all().await;
    let witness = Witness::start(&stack).await;
    stack.stop(Service::Persister).await;
    let mut victims = Vec::new();
    for &(name, is_lost) in DAMAGES {
        let mut victim = Victim::new(&stack, name).await;
        victim.publish("one", 2).await;
        victim.publish("two", 2).await;
        let last = victim.publish("three", 2).await;
        let viewer = stack.api().watch(victim.run.id, None).await;
        damage(&mut victim, name, last).await;
        victims.push((name, is_lost, victim, viewer));
    }
    stack.start_service(Service::Persister).await;
    for (name, is_lost, mut victim, mut viewer) in victims {
        // By another producer: some damage also hits what Redis knows of the first one, which would
        // have to send again.
        let connection = victim.run.publisher_connection().await;
        victim.publisher = Publisher::new(connection, stack.keys(), victim.run.id);
        let last = victim.publish_after(name, "after").await;
        eventually(&format!("{name}: all is stored"), async || {
            let events = stack.database.events(victim.run.id).await;
            let texts: Vec<_> = events
                .iter()
                .map(|event| String::from_utf8_lossy(&event.body).into_owned())
                .collect();
            let is_stored = texts.iter().any(|text| text.contains("after"));
            is_stored
                .then_some(())
                .ok_or_else(|| format!("{last}: {texts:?}"))
        })
        .await;
        let events = stack.database.events(victim.run.id).await;
        let has_gap = events.iter().any(|event| {
            let line: Value = serde_json::from_slice(&event.body).expect("JSON");
            line["kind"] == "gap" && line["reason"] == json!("lost")
        });
        assert_eq!(has_gap, is_lost, "{name}: {events:?}");
        read_until_text(&mut viewer, "after\n").await;
        let mut late = stack.api().watch(victim.run.id, None).await;
        read_until_text(&mut late, "after\n").await;
        // A gateway that had read the events before the damage still shows them to viewers; what is
        // stored has the gap.
        let path = format!("/v1/runs/{}/events", victim.run.id);
        let page = stack.api().get(&path).await;
        let stored = page["events"].as_array().expect("events");
        let is_told = stored.iter().any(|event| event["kind"] == "gap");
        assert!(!is_lost || is_told, "{name}: {page}");
    }
    let repaired = counter(&metrics, "runcast_persister_repaired_runs_total").await;
    assert!(repaired >= 3, "{repaired}");
    witness.assert_unharmed(&stack).await;
    assert_calm(&stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_seq_that_a_publisher_raised_is_taken_back() {
    let stack = Stack::start().await;
    let mut victim = Victim::new(&stack, "raised").await;
    let last = victim.publish("one", 2).await;
    stack.database.wait_stored(victim.run.id, last).await;
    let field = format!("d:{}", victim.publisher.producer);
    let meta = victim.keys.meta.clone();
    command(
        &mut victim.redis,
        &["HSET", &meta, &field, "9007199254740991"],
    )
    .await;
    // Another producer of the run publishes: what is told then is what Postgres holds.
    let connection = victim.run.publisher_connection().await;
    let mut other = Publisher::new(connection, stack.keys(), victim.run.id);
    let last = other.publish(&numbered_lines("two", 1..=1)).await;
    stack.database.wait_stored(victim.run.id, last).await;
    eventually("the durable seq is that of Postgres", async || {
        let mut get = redis::cmd("HGET");
        get.arg(&meta).arg(&field);
        let seq: String = get.query_async(&mut victim.redis).await.expect("HGET");
        (seq == "2").then_some(()).ok_or(seq)
    })
    .await;
}

/// Publishes one line over HTTP; the answer must be 200.
async fn publish_over_http(stack: &Stack, run: Uuid, seq: u64, name: &str) {
    let request = stack
        .api()
        .request(Method::POST, &format!("/v1/runs/{run}/events"));
    let request = request
        .header("content-type", "application/x-ndjson")
        .header("producer-id", "story")
        .header("producer-seq", seq)
        .body(output_line(&format!("line {seq}\n")));
    let response = send(request).await;
    let status = response.status();
    let body = response.text().await.expect("a body");
    assert_eq!(status, StatusCode::OK, "{name}: {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_a_stored_run_is_repaired_when_the_gateway_appends() {
    let stack = Stack::start().await;
    let mut redis = stack.redis.connection().await;
    for name in [
        "an entry behind the last id",
        "no id is left",
        "meta of another type",
    ] {
        let run = stack.api().create_run(name).await.id;
        publish_over_http(&stack, run, 1, name).await;
        stack.database.wait_stored_events(run, 1).await;
        let keys = stack.keys().run(run);
        let words = match name {
            "an entry behind the last id" => {
                vec!["XADD", &keys.stream, "MAXLEN", "0", "*", "a", "b"]
            }
            "no id is left" => vec!["XADD", &keys.stream, "MAXLEN", "0", TOP, "a", "b"],
            _ => vec!["SET", &keys.meta, "x"],
        };
        command(&mut redis, &words).await;
        publish_over_http(&stack, run, 2, name).await;
        stack.database.wait_stored_events(run, 2).await;
        let events = stack.database.events(run).await;
        let seqs: Vec<_> = events.iter().map(|event| event.producer_seq).collect();
        assert_eq!(seqs, [1, 2], "{name}");
    }
    assert_calm(&stack);
}
