//! What is no event goes aside with its bytes, and the run goes on.

use runcast_common::event::Kind;
use runcast_common::id::EventId;
use runcast_common::limits::MAX_EVENT_BYTES;
use runcast_tests::database::{StoredEvent, text};
use runcast_tests::lines::{numbered, output};
use runcast_tests::publisher::Publisher;
use runcast_tests::sse::Sse;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_entry_goes_aside_and_the_stream_goes_on() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("damaged").await;
    let keys = stack.keys().run(run.id);
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut viewer = stack.api().watch(run.id, None).await;
    let last = publisher.publish(&numbered("before", 1..=3)).await;

    // No producer can write such an entry; somebody with the rights of an operator can.
    let mut redis = stack.redis.connection().await;
    let broken = EventId::new(last.epoch, last.seq + 1);
    let () = redis::pipe()
        .atomic()
        .cmd("XADD")
        .arg(&keys.stream)
        .arg(broken.to_string())
        .arg(&[("what", "is this \u{0}\u{1}")])
        .cmd("HSET")
        .arg(&keys.meta)
        .arg("seq")
        .arg(broken.seq)
        .query_async(&mut redis)
        .await
        .expect("Redis takes a broken entry");
    let last = publisher.publish(&numbered("after", 1..=3)).await;
    stack.database.holds(run.id, last).await;

    let letters = stack.database.dead_letters(run.id).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].id, broken);
    let body = String::from_utf8(letters[0].body.clone()).expect("text");
    assert!(
        body.contains("what") && body.contains("is this \u{0}\u{1}"),
        "{body:?}"
    );
    assert!(!letters[0].reason.is_empty());
    // In its place stands a note.
    let stored = stack.database.events(run.id).await;
    let seqs: Vec<_> = stored.iter().map(|event| event.id.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(stored[3].kind, Kind::Gap.number());
    assert_note(&stored[3]);

    // A viewer that was there, and one that comes when it is history.
    assert_steps_over(&mut viewer, broken).await;
    let mut late = stack.api().watch(run.id, None).await;
    assert_steps_over(&mut late, broken).await;
}

/// Checks that a stored gap says that exactly one event is missing in its place.
fn assert_note(note: &StoredEvent) {
    let EventId { epoch, seq } = note.id;
    let gap: Value = serde_json::from_slice(&note.body).expect("JSON");
    assert_eq!(
        (&gap["count"], &gap["reason"]),
        (&json!(1), &json!("unreadable"))
    );
    assert_eq!(
        gap["after"],
        EventId::new(epoch, seq - 1).to_string(),
        "{gap} at {}",
        note.id
    );
    assert_eq!(
        gap["next"],
        EventId::new(epoch, seq + 1).to_string(),
        "{gap} at {}",
        note.id
    );
}

/// Checks that a viewer sees events 1 to 7 but for the broken one, and is told about that one.
async fn assert_steps_over(stream: &mut Sse, broken: EventId) {
    let (mut seqs, mut gaps) = (Vec::new(), Vec::new());
    while seqs.last() != Some(&7) {
        let frame = stream.next().await;
        match frame.event.as_str() {
            "gap" => gaps.push(frame.json()),
            "ready" => {}
            _ => seqs.push(frame.id.seq),
        }
    }
    assert_eq!(seqs, [1, 2, 3, 5, 6, 7]);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["reason"], "unreadable");
    let before = EventId::new(broken.epoch, broken.seq - 1);
    assert_eq!(gaps[0]["after"], before.to_string(), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_no_event_goes_aside_alone() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("bad lines").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let oversized = output(&"x".repeat(MAX_EVENT_BYTES - 100));
    let oversized = [
        &oversized[..oversized.len() - 1],
        br#","more":""#,
        &[b'y'; 200],
        br#""}"#,
    ]
    .concat();
    assert!(oversized.len() > MAX_EVENT_BYTES);
    let lines = [
        output("first\n"),
        b"this is no JSON".to_vec(),
        output("second\n"),
        oversized.clone(),
        output("third\n"),
    ];
    let last = publisher.publish(&lines).await;
    stack.database.holds(run.id, last).await;

    let events = stack.database.events(run.id).await;
    assert_eq!(text(&events, Kind::Output), b"first\nsecond\nthird\n");
    let notes: Vec<_> = events
        .iter()
        .filter(|event| event.kind == Kind::Gap.number())
        .collect();
    assert_eq!(notes.len(), 2);
    notes.into_iter().for_each(assert_note);
    let letters = stack.database.dead_letters(run.id).await;
    assert_eq!(
        letters.len(),
        2,
        "{:?}",
        letters
            .iter()
            .map(|letter| &letter.reason)
            .collect::<Vec<_>>()
    );
    assert_eq!(letters[0].body, b"this is no JSON");
    assert_eq!(letters[1].body, oversized);
    let reason = &letters[1].reason;
    for number in [oversized.len(), MAX_EVENT_BYTES] {
        assert!(
            reason.contains(&number.to_string()),
            "size and limit: {reason}"
        );
    }

    // Its producer has published them, so they count as stored: the next append finds no gap.
    publisher.publish(&[output("fourth\n")]).await;
    let mut frames = stack.api().watch(run.id, None).await;
    let shown = frames.until("ready").await;
    let texts: Vec<_> = shown
        .iter()
        .filter(|frame| frame.event == "output")
        .collect();
    assert_eq!(texts.len(), 4);
    let gaps = shown.iter().filter(|frame| frame.event == "gap").count();
    assert_eq!(gaps, 2);
}
