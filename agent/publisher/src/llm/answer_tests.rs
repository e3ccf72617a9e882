//! When a text is published, and that it stays the same text. Time is paused, so the moments are
//! exact.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use runcast_common::protocol::event::{Kind, Text};
use runcast_common::protocol::limits::MAX_NAME_BYTES;
use tokio::time::sleep;

use super::answer::{
    FLUSH_BYTES, ForwardError, InvalidTextName, LINGER, MAX_BUFFERED_BYTES, ModelText,
};
use crate::error::PublishError;
use crate::publisher::Publisher;

/// Stream and text of each chunk in the publisher's queue.
fn chunks_of(publisher: &Publisher) -> Vec<(Option<String>, String)> {
    let word = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
    let lines = publisher.take_queued().into_iter();
    let chunk = |line: serde_json::Value| {
        assert_eq!(line["kind"], "output", "{line}");
        (word(&line["stream"]), word(&line["text"]).expect("a text"))
    };
    lines.map(chunk).collect()
}

fn texts(publisher: &Publisher) -> Vec<String> {
    let chunks = chunks_of(publisher).into_iter();
    chunks.map(|(_stream, text)| text).collect()
}

#[tokio::test(start_paused = true)]
async fn a_delta_after_a_pause_is_published_at_once_and_later_ones_are_combined() {
    let publisher = Publisher::with_queue_only();
    let mut text = ModelText::new(&publisher);
    text.push("Hel").await.expect("pushed");
    assert_eq!(texts(&publisher), ["Hel"]);
    for delta in ["lo", ", ", "wor"] {
        text.push(delta).await.expect("pushed");
    }
    assert_eq!(texts(&publisher), [""; 0]);
    // Without another push, the task publishes it.
    sleep(LINGER + Duration::from_millis(2)).await;
    assert_eq!(texts(&publisher), ["lo, wor"]);
    sleep(LINGER).await;
    text.push("ld").await.expect("pushed");
    assert_eq!(texts(&publisher), ["ld"]);
    text.finish().await.expect("finished");
    assert_eq!(texts(&publisher), [""; 0], "nothing was left");
}

#[tokio::test(start_paused = true)]
async fn complete_lines_and_large_texts_are_published_at_once() {
    let publisher = Publisher::with_queue_only();
    let mut text = ModelText::new(&publisher);
    text.push("a").await.expect("pushed");
    text.push("b").await.expect("pushed");
    text.push("c\nd\ne").await.expect("pushed");
    assert_eq!(texts(&publisher), ["a", "bc\nd\n"]);
    let large = "x".repeat(FLUSH_BYTES);
    text.push(&large).await.expect("pushed");
    assert_eq!(texts(&publisher), [format!("e{large}")]);
    text.push("f").await.expect("pushed");
    text.finish_line().await.expect("finished");
    assert_eq!(texts(&publisher), ["f\n"]);

    let mut text = ModelText::new(&publisher);
    text.push("ended\n").await.expect("pushed");
    text.finish_line().await.expect("finished");
    ModelText::new(&publisher)
        .finish_line()
        .await
        .expect("an empty text has no line to end");
    assert_eq!(texts(&publisher), ["ended\n"]);
}

#[tokio::test(start_paused = true)]
async fn chunks_join_to_the_same_text_however_it_was_pushed() {
    let publisher = Publisher::with_queue_only();
    let whole = "Ein 😀 für\r\n\nalle: ∀x∃y…\n".repeat(4000);
    let mut text = ModelText::new(&publisher);
    let mut rest = whole.as_str();
    let mut pushed = 0;
    while !rest.is_empty() {
        // From one byte to more than one event can carry.
        let length = rest
            .floor_char_boundary((pushed * pushed) % 40_000 + 4)
            .max(1);
        let (delta, more) = rest.split_at(length.min(rest.len()));
        text.push(delta).await.expect("pushed");
        rest = more;
        pushed += 1;
        if pushed % 3 == 0 {
            sleep(Duration::from_millis(11)).await;
        }
    }
    text.finish().await.expect("finished");
    assert_eq!(texts(&publisher).concat(), whole);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_deltas_a_second_become_twenty_five_events() {
    let publisher = Publisher::with_queue_only();
    let mut text = ModelText::new(&publisher);
    for _ in 0..1000 {
        text.push("abc ").await.expect("pushed");
        sleep(Duration::from_millis(10)).await;
    }
    text.finish().await.expect("finished");
    let events = texts(&publisher);
    assert_eq!(events.concat(), "abc ".repeat(1000));
    assert!(
        (180..=260).contains(&events.len()),
        "{} events",
        events.len()
    );
}

#[tokio::test(start_paused = true)]
async fn names_distinguish_parallel_answers() {
    let publisher = Publisher::with_queue_only();
    let mut one = ModelText::named(&publisher, "one").expect("a name");
    let mut two = ModelText::named(&publisher, "two").expect("a name");
    for _ in 0..50 {
        one.push("1").await.expect("pushed");
        two.push("2").await.expect("pushed");
        sleep(Duration::from_millis(7)).await;
    }
    one.finish().await.expect("finished");
    two.finish().await.expect("finished");
    let chunks = chunks_of(&publisher);
    for (name, text) in [("one", "1"), ("two", "2")] {
        let own = chunks
            .iter()
            .filter(|(stream, _)| stream.as_deref() == Some(name));
        let own: String = own.map(|(_, text)| text.as_str()).collect();
        assert_eq!(own, text.repeat(50));
    }
    let refused = ModelText::named(&publisher, &"x".repeat(MAX_NAME_BYTES + 1));
    assert_eq!(
        refused.expect_err("too long"),
        InvalidTextName(MAX_NAME_BYTES + 1)
    );
}

#[derive(Debug, thiserror::Error)]
#[error("the model is overloaded")]
struct Overloaded;

#[tokio::test(start_paused = true)]
async fn a_failed_or_cancelled_stream_publishes_what_it_had() {
    let publisher = Publisher::with_queue_only();
    let mut text = ModelText::new(&publisher);
    let deltas = stream::iter([
        Ok("good "),
        Ok("so "),
        Ok("far"),
        Err(Overloaded),
        Ok("never"),
    ]);
    let failed = text.forward(deltas).await.expect_err("the third one");
    assert!(
        matches!(failed, ForwardError::Source(Overloaded)),
        "{failed}"
    );
    assert_eq!(texts(&publisher).concat(), "good so far");
    drop(text);

    let mut text = ModelText::new(&publisher);
    let endless = stream::iter([Ok::<_, Overloaded>("a"), Ok("b")]).chain(stream::pending());
    let cancelled = tokio::time::timeout(Duration::from_millis(10), text.forward(endless));
    cancelled.await.expect_err("it never ends");
    assert_eq!(texts(&publisher), ["a"], "b may still be followed by more");
    drop(text);
    assert_eq!(
        texts(&publisher),
        ["b"],
        "published by the drop, without a wait"
    );
}

/// Fills the queue of a publisher that sends nothing.
fn fill(publisher: &Publisher) {
    let payload = Text {
        text: Some("x"),
        ..Text::default()
    };
    while publisher.try_publish(Kind::Output, &payload).is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_delays_the_text_without_changing_it() {
    let publisher = Publisher::with_queue_only();
    fill(&publisher);
    let mut text = ModelText::new(&publisher);
    let delta = "y".repeat(1000);
    for _ in 0..MAX_BUFFERED_BYTES / 1000 {
        text.push(&delta).await.expect("buffered");
    }
    let full = tokio::time::timeout(Duration::from_secs(1), text.push(&delta));
    full.await.expect_err("too much is buffered");
    drop(publisher.take_queued());
    text.push("end").await.expect("there is room");
    text.finish().await.expect("finished");
    let whole = delta.repeat(MAX_BUFFERED_BYTES / 1000 + 1) + "end";
    assert_eq!(texts(&publisher).concat(), whole);

    fill(&publisher);
    let mut text = ModelText::new(&publisher);
    text.push("lost").await.expect("buffered");
    drop(text);
    let event = publisher.take_queued().pop().expect("a gap");
    assert_eq!(
        (&event["kind"], &event["count"], &event["bytes"]),
        (&"gap".into(), &1.into(), &4.into()),
        "{event}"
    );
}

#[tokio::test(start_paused = true)]
async fn push_reports_a_closed_publisher() {
    let publisher = Publisher::with_queue_only();
    let mut text = ModelText::new(&publisher);
    text.push("a").await.expect("pushed");
    text.push("b").await.expect("buffered");
    publisher.close(Duration::ZERO).await.expect("closed");
    sleep(2 * LINGER).await;
    for _ in 0..3 {
        let event = text.push("c").await;
        assert!(
            matches!(event, Err(PublishError::Closed | PublishError::Stopped(_))),
            "{event:?}"
        );
    }
}
