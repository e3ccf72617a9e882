//! History in Postgres and live events in Redis are one stream, without a seam.

use runcast_common::entry::Entry;
use runcast_common::id::EventId;
use runcast_common::limits::LIVE_WINDOW_EVENTS;
use runcast_tests::eventually::eventually;
use runcast_tests::lines::numbered;
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::Sse;
use runcast_tests::stack::{Part, Stack};

/// Reads events of the connection and compares each with the line that was published.
async fn assert_shows(stream: &mut Sse, lines: &[Vec<u8>], first: u64) {
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
async fn trimmed_history_is_joined_to_live() {
    const TRIMMED: u64 = 3_000;
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("long").await;
    let keys = stack.keys().run(run.id);
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let stored = numbered("stored", 1..=LIVE_WINDOW_EVENTS + TRIMMED);
    let mut last = EventId::ZERO;
    for entry in stored.chunks(500) {
        last = publisher.publish(entry).await;
    }
    stack.database.holds(run.id, last).await;

    // Redis holds the live window only: the rest is in Postgres alone.
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
        let trimmed = (first.seq > TRIMMED).then_some(());
        trimmed.ok_or_else(|| format!("the first entry ends with {first}"))
    })
    .await;

    // What follows is live while the viewer still reads history. Nothing stores it meanwhile.
    stack.stop(Part::Persister).await;
    let live = numbered("live", 1..=700);
    let mut viewer = stack.api().watch(run.id, None).await;
    for entry in live.chunks(7) {
        publisher.publish(entry).await;
    }
    assert_shows(&mut viewer, &stored, 1).await;
    let first_live = stored.len() as u64 + 1;
    assert_shows(&mut viewer, &live, first_live).await;

    // The same for one who comes later, to a gateway that has nothing in memory.
    stack.stop(Part::Gateway).await;
    stack.launch(Part::Gateway).await;
    let mut late = stack.api().watch(run.id, None).await;
    assert_shows(&mut late, &stored, 1).await;
    assert_shows(&mut late, &live, first_live).await;
    assert_eq!(late.next().await.event, "ready");
    stack.launch(Part::Persister).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_history_hold_every_event_once() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("pages").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let lines = numbered("line", 1..=250);
    let last = publisher.publish(&lines).await;
    stack.database.holds(run.id, last).await;

    let seqs = |page: &serde_json::Value| -> Vec<u64> {
        let events = page["events"].as_array().expect("events");
        events
            .iter()
            .map(|event| event["seq"].as_u64().expect("a seq"))
            .collect()
    };
    let (mut after, mut seen) = (String::from("0-0"), Vec::new());
    for _ in 0..4 {
        let path = format!("/v1/runs/{}/events?limit=100&after={after}", run.id);
        let page = stack.api().get(&path).await;
        assert_eq!(page["watermark"], last.to_string());
        seen.extend(seqs(&page));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, (1..=250).collect::<Vec<_>>());

    let path = format!("/v1/runs/{}/events?limit=100&before=end", run.id);
    let newest = stack.api().get(&path).await;
    assert_eq!(seqs(&newest), (151..=250).collect::<Vec<_>>());
    let before = newest["events"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/v1/runs/{}/events?limit=100&before={before}", run.id);
    let earlier = stack.api().get(&path).await;
    assert_eq!(seqs(&earlier), (51..=150).collect::<Vec<_>>());
}
