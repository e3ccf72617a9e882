//! History in Postgres and live events in Redis form one stream without gaps.

use std::io::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redis::aio::MultiplexedConnection;
use reqwest::{Method, StatusCode};
use runcast_common::protocol::entry::Entry;
use runcast_common::protocol::event;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::limits::LIVE_WINDOW_EVENTS;
use runcast_tests::api::{Api, problem, send};
use runcast_tests::database::Database;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::Sse;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// Reads events of the connection and compares each with the published line.
async fn assert_next_events(stream: &mut Sse, lines: &[Vec<u8>], first: u64) {
    for (line, seq) in lines.iter().zip(first..) {
        let mut frame = stream.next().await;
        while frame.event == "ready" {
            frame = stream.next().await;
        }
        let open = &line[..line.len() - 1];
        assert!(
            frame.data.as_bytes().starts_with(open),
            "event {seq} is {frame:?}"
        );
        assert_eq!(frame.id.seq, seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimmed_history_joins_live_events() {
    const TRIMMED_EVENTS: u64 = 3_000;
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("long").await;
    let keys = stack.keys().run(run.id);
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let stored = numbered_lines("stored", 1..=LIVE_WINDOW_EVENTS + TRIMMED_EVENTS);
    let mut last = EventId::ZERO;
    for entry in stored.chunks(500) {
        last = publisher.publish(entry).await;
    }
    stack.database.wait_stored(run.id, last).await;

    // Redis holds only the live window; the rest is only in Postgres.
    let mut redis = stack.redis.connection().await;
    eventually("the stream is trimmed", async || {
        let mut command = redis::cmd("XRANGE");
        command
            .arg(&keys.stream)
            .arg("-")
            .arg("+")
            .arg("COUNT")
            .arg(1);
        let reply = command.query_async(&mut redis).await.expect("a range");
        let entries = Entry::parse_range(reply).expect("entries");
        let first = entries.into_iter().flatten().next();
        let first = first.ok_or("no readable entry")?.last;
        let trimmed = (first.seq > TRIMMED_EVENTS).then_some(());
        trimmed.ok_or_else(|| format!("the first entry ends with {first}"))
    })
    .await;

    // The next events are published while the viewer still reads history, and stay unstored.
    stack.stop(Service::Persister).await;
    let live = numbered_lines("live", 1..=700);
    let mut viewer = stack.api().watch(run.id, None).await;
    for entry in live.chunks(7) {
        publisher.publish(entry).await;
    }
    assert_next_events(&mut viewer, &stored, 1).await;
    let first_live = stored.len() as u64 + 1;
    assert_next_events(&mut viewer, &live, first_live).await;

    // The same for a viewer that comes later, to a gateway with an empty cache.
    stack.stop(Service::Gateway).await;
    stack.start_service(Service::Gateway).await;
    let mut late = stack.api().watch(run.id, None).await;
    assert_next_events(&mut late, &stored, 1).await;
    assert_next_events(&mut late, &live, first_live).await;
    assert_eq!(late.next().await.event, "ready");
    stack.start_service(Service::Persister).await;
}

/// Appends entries of random sizes, and trims stored ones from Redis at random, as a small window
/// would.
async fn append_and_trim(
    publisher: &mut Publisher,
    mut redis: MultiplexedConnection,
    stream: &str,
    database: &Database,
    run: Uuid,
    lines: &[Vec<u8>],
    rng: &mut StdRng,
) -> EventId {
    let (mut rest, mut last) = (lines, EventId::ZERO);
    while !rest.is_empty() {
        let size = rng.random_range(1..=rest.len().min(90));
        last = publisher.publish(&rest[..size]).await;
        rest = &rest[size..];
        if rng.random_ratio(1, 4) {
            let stored = database.run(run).await.watermark;
            let upto = rng.random_range(0..=stored.seq);
            let mut trim = redis::cmd("XTRIM");
            trim.arg(stream).arg("MINID").arg("=");
            trim.arg(format!("{}-{}", stored.epoch, upto + 1));
            let trimmed: u64 = trim.query_async(&mut redis).await.expect("a trim");
            assert!(trimmed <= lines.len() as u64);
        }
    }
    last
}

/// Checks that the events are these lines with their ids, from seq `first` on.
fn assert_events(events: &[String], lines: &[Vec<u8>], epoch: u64, first: u64) {
    for (event, seq) in events.iter().zip(first..) {
        let line = &lines[usize::try_from(seq).expect("a seq") - 1];
        let open = std::str::from_utf8(&line[..line.len() - 1]).expect("UTF-8");
        let expected = format!("{open},\"id\":\"{epoch}-{seq}\",\"producer\"");
        assert!(event.starts_with(&expected), "event {seq} is {event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_complete_in_both_directions_while_run_is_written() {
    const EVENT_COUNT: u64 = 6_000;
    let seed = rand::random();
    writeln!(std::io::stderr(), "seed {seed}").expect("stderr takes a line");
    let mut rng = StdRng::seed_from_u64(seed);
    let stack = Stack::start().await;
    let (api, run) = (stack.api(), stack.api().create_run("pages").await);
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let lines = numbered_lines("line", 1..=EVENT_COUNT);
    let epoch = publisher.publish(&lines[..200]).await.epoch;

    let stream = stack.keys().run(run.id).stream;
    let redis = stack.redis.connection().await;
    let mut writer_rng = StdRng::seed_from_u64(seed.wrapping_add(1));
    let writing = append_and_trim(
        &mut publisher,
        redis,
        &stream,
        &stack.database,
        run.id,
        &lines[200..],
        &mut writer_rng,
    );
    let reading = async {
        // Forward, until the writer is done and all events were read.
        let mut seen = 0;
        let mut after = "0-0".to_owned();
        while seen < EVENT_COUNT {
            let limit = rng.random_range(1..=700);
            let path = format!(
                "/v1/runs/{}/events?limit={limit}&after={after}&wait=5",
                run.id
            );
            let page = page(&api, &path).await;
            assert!(!page.events.is_empty(), "nothing after {after} within 5 s");
            assert!(page.events.len() <= limit);
            assert_events(&page.events, &lines, epoch, seen + 1);
            seen += page.events.len() as u64;
            after = page.newer().to_owned();
            assert_eq!(after, format!("{epoch}-{seen}"));
            // Meanwhile backward from some end, now and then.
            if rng.random_ratio(1, 3) {
                let path = format!("/v1/runs/{}/events?limit={limit}&before=end", run.id);
                let mut page = self::page(&api, &path).await;
                let (_, end) = page.newer().split_once('-').expect("an id");
                let mut end: u64 = end.parse().expect("a seq");
                for _ in 0..3 {
                    let first = end + 1 - page.events.len() as u64;
                    assert_eq!(page.events.len() as u64, (limit as u64).min(end));
                    assert_events(&page.events, &lines, epoch, first);
                    end = first - 1;
                    let Some(older) = page.cursors["older"].as_str() else {
                        assert_eq!(first, 1, "the beginning");
                        break;
                    };
                    assert_eq!(older, format!("{epoch}-{first}"));
                    let path = format!("/v1/runs/{}/events?limit={limit}&before={older}", run.id);
                    page = self::page(&api, &path).await;
                }
            }
        }
    };
    let (last, ()) = tokio::join!(writing, reading);

    assert_all_read_backward(&stack, run.id, &lines, last).await;
}

/// Reads everything backward, from Redis and Postgres, and then from Postgres alone.
async fn assert_all_read_backward(stack: &Stack, run: Uuid, lines: &[Vec<u8>], last: EventId) {
    let epoch = last.epoch;
    for round in ["live", "stored"] {
        let mut redis = stack.redis.connection().await;
        if round == "stored" {
            stack.database.wait_stored(run, last).await;
            let mut forget = redis::cmd("XTRIM");
            forget
                .arg(&stack.keys().run(run).stream)
                .arg("MAXLEN")
                .arg(0);
            let _: u64 = forget.query_async(&mut redis).await.expect("a trim");
        }
        let (mut before, mut missing) = ("end".to_owned(), lines.len() as u64);
        loop {
            let path = format!("/v1/runs/{run}/events?limit=997&before={before}");
            let page = page(&stack.api(), &path).await;
            missing -= page.events.len() as u64;
            assert_events(&page.events, lines, epoch, missing + 1);
            match page.cursors["older"].as_str() {
                Some(older) => before = older.to_owned(),
                None => break,
            }
        }
        assert_eq!(missing, 0, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_continues_from_a_page_without_gap() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("seam").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let lines = numbered_lines("line", 1..=3_000);
    let last = publisher.publish(&lines[..400]).await;
    stack.database.wait_stored(run.id, last).await;
    // The next events are only in Redis.
    stack.stop(Service::Persister).await;
    for entry in lines[400..2_500].chunks(300) {
        publisher.publish(entry).await;
    }
    let path = format!("/v1/runs/{}/events?limit=1000&before=end", run.id);
    let page = page(&stack.api(), &path).await;
    assert_events(&page.events, &lines, last.epoch, 1_501);
    assert_eq!(
        (page.events.len(), &page.cursors["more"]),
        (1_000, &json!(false))
    );
    let newer = page.newer();
    let mut stream = stack.api().watch(run.id, Some(newer)).await;
    publisher.publish(&lines[2_500..]).await;
    assert_next_events(&mut stream, &lines[2_500..], 2_501).await;

    // By line number, on either side of the watermark; and on a channel with no such event.
    for line in [1, 400, 401, 2_999] {
        let path = format!("/v1/runs/{}/events?limit=2&line={line}", run.id);
        let page = self::page(&stack.api(), &path).await;
        assert_events(&page.events, &lines, last.epoch, line);
    }
    for query in ["channel=status&before=end", "channel=status", "line=99999"] {
        let path = format!("/v1/runs/{}/events?{query}", run.id);
        let page = self::page(&stack.api(), &path).await;
        assert_eq!(page.events, [""; 0], "{query}");
        assert_eq!(page.newer(), format!("{}-3000", last.epoch), "{query}");
    }
    for query in [
        "after=1-1&before=end",
        "line=0",
        "at=noon",
        "wait=51",
        "before=end&wait=1",
    ] {
        let path = format!("/v1/runs/{}/events?{query}", run.id);
        problem(
            send(stack.api().request(Method::GET, &path)).await,
            StatusCode::BAD_REQUEST,
        )
        .await;
    }
    stack.start_service(Service::Persister).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_found_by_time_stored_or_not() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("moments").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let lines = numbered_lines("line", 1..=600);
    let mut moments = Vec::new();
    for (index, entry) in lines.chunks(30).enumerate() {
        // By the clock that Redis shares with this process.
        let before = event::now_ms();
        eventually("the clock has moved", async || {
            (event::now_ms() > before + 1)
                .then_some(())
                .ok_or_else(String::new)
        })
        .await;
        moments.push((event::now_ms(), index as u64 * 30 + 1));
        let last = publisher.publish(entry).await;
        if index == 9 {
            stack.database.wait_stored(run.id, last).await;
            stack.stop(Service::Persister).await;
        }
    }
    for (at, first) in moments {
        let path = format!("/v1/runs/{}/events?limit=1&at={at}", run.id);
        let page = page(&stack.api(), &path).await;
        let seq = page.json(0)["seq"].as_u64();
        assert_eq!(seq, Some(first), "at {at}");
    }
    for (at, found) in [("1970-01-01T00:00:00Z", 1), ("2999-01-01T00:00:00Z", 0)] {
        let path = format!("/v1/runs/{}/events?limit=1&at={at}", run.id);
        assert_eq!(page(&stack.api(), &path).await.events.len(), found, "{at}");
    }
    stack.start_service(Service::Persister).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_poll_is_woken_by_one_event() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("poll").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let last = publisher.publish(&numbered_lines("line", 1..=3)).await;

    let path = format!("/v1/runs/{}/events?after={last}", run.id);
    let started = Instant::now();
    let empty = page(&stack.api(), &format!("{path}&wait=1")).await;
    assert_eq!(
        (empty.events.len(), empty.newer()),
        (0, last.to_string().as_str())
    );
    assert!(started.elapsed() >= Duration::from_secs(1));

    // Without a wake-up the tail polls every 5 s. So only a wake-up delivers an event sooner, each
    // time.
    let mut after = last;
    for number in 4..=8 {
        let path = format!("/v1/runs/{}/events?after={after}&wait=40", run.id);
        let api = stack.api();
        let poll = tokio::spawn(async move { page(&api, &path).await });
        after = publisher
            .publish(&numbered_lines("line", number..=number))
            .await;
        let page = timeout(Duration::from_secs(4), poll).await;
        let page = page.expect("woken by a wake-up").expect("the poll's task");
        assert_eq!(
            (page.events.len(), page.newer()),
            (1, after.to_string().as_str())
        );
    }

    // An event that the filter excludes wakes no reader; the end of the run wakes all.
    let ending = stack.api().create_run("ending").await.id;
    let api = stack.api();
    let waiting = tokio::spawn(async move {
        let path = format!("/v1/runs/{ending}/events?channel=metric&wait=50");
        page(&api, &path).await
    });
    let mut wrap = stack.wrap(ending, &["echo", "all there is"]);
    assert!(wrap.wait_exit(WAIT_DEADLINE).await.success());
    let page = waiting.await.expect("the poll's task");
    assert_eq!(
        (page.events.len(), &page.cursors["ended"]),
        (0, &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_cross_a_redis_data_loss_in_both_directions() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("epochs").await;
    let connection = run.publisher_connection().await;
    let mut first = Publisher::new(connection, stack.keys(), run.id);
    let before = first.publish(&numbered_lines("before", 1..=300)).await;
    stack.database.wait_stored(run.id, before).await;
    stack.stop(Service::Persister).await;
    let mut redis = stack.redis.connection().await;
    let _: () = redis::cmd("FLUSHALL")
        .query_async(&mut redis)
        .await
        .expect("a flush");
    let connection = run.publisher_connection().await;
    let mut second = Publisher::new(connection, stack.keys(), run.id);
    let mut after = EventId::ZERO;
    for entry in numbered_lines("after", 1..=250).chunks(40) {
        after = second.publish(entry).await;
    }
    assert!(after.epoch > before.epoch);

    let api = stack.api();
    for round in ["live", "stored"] {
        if round == "stored" {
            stack.start_service(Service::Persister).await;
            stack.database.wait_stored(run.id, after).await;
        }
        let (mut forward, mut cursor) = (Vec::new(), "0-0".to_owned());
        loop {
            let path = format!("/v1/runs/{}/events?limit=70&after={cursor}", run.id);
            let page = page(&api, &path).await;
            cursor = page.newer().to_owned();
            forward.extend(page.events);
            if page.cursors["more"] == false {
                break;
            }
        }
        // The new epoch is announced once.
        assert_eq!(forward.len(), 300 + 1 + 250, "{round}");
        assert!(
            forward[300].contains("\"reason\":\"reborn\""),
            "{round}: {}",
            forward[300]
        );
        for limit in [70, 300, 301, 1_000] {
            let (mut backward, mut cursor) = (Vec::new(), "end".to_owned());
            loop {
                let path = format!("/v1/runs/{}/events?limit={limit}&before={cursor}", run.id);
                let mut page = page(&api, &path).await;
                page.events.append(&mut backward);
                backward = page.events;
                match page.cursors["older"].as_str() {
                    Some(older) => cursor = older.to_owned(),
                    None => break,
                }
            }
            assert_eq!(backward, forward, "{round}, by {limit}");
        }
        for (line, id) in [
            (300, before),
            (301, EventId::new(after.epoch, 1)),
            (550, after),
        ] {
            let path = format!(
                "/v1/runs/{}/events?limit=1&channel=output&line={line}",
                run.id
            );
            assert_eq!(page(&api, &path).await.newer(), id.to_string(), "{round}");
        }
    }
}

/// A page as NDJSON.
struct Page {
    events: Vec<String>,
    cursors: Value,
}

impl Page {
    fn newer(&self) -> &str {
        self.cursors["newer"].as_str().expect("a cursor")
    }

    fn json(&self, at: usize) -> Value {
        serde_json::from_str(&self.events[at]).expect("JSON")
    }
}

async fn page(api: &Api, path: &str) -> Page {
    let request = api.request(Method::GET, path);
    let response = send(request.header("accept", "application/x-ndjson")).await;
    let (status, text) = (response.status(), response.text().await.expect("a body"));
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    let mut events: Vec<String> = text.lines().map(str::to_owned).collect();
    let last = events.pop().expect("the cursors");
    let cursors: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(cursors["kind"], "page");
    Page { events, cursors }
}
