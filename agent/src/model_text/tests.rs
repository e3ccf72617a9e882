//! When a text is published, and that it stays the same text: in virtual time, so that the moments are
//! exact.

use futures::{StreamExt as _, stream};
use runcast_common::protocol::event::Text;
use tokio::time::sleep;

use super::*;

/// What waits in the publisher's queue: stream and text of each chunk.
fn chunks_of(publisher: &Publisher) -> Vec<(Option<String>, String)> {
    let word = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
    let lines = publisher.take_waiting().into_iter();
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
async fn what_comes_after_a_pause_is_published_at_once_and_the_rest_together() {
    let publisher = Publisher::of_its_queue_alone();
    let mut text = ModelText::new(&publisher);
    text.push("Hel").await.expect("pushed");
    assert_eq!(texts(&publisher), ["Hel"]);
    for delta in ["lo", ", ", "wor"] {
        text.push(delta).await.expect("pushed");
    }
    assert_eq!(texts(&publisher), [""; 0]);
    // Nobody pushes any more, and it goes out all the same.
    sleep(LINGER + Duration::from_millis(2)).await;
    assert_eq!(texts(&publisher), ["lo, wor"]);
    sleep(LINGER).await;
    text.push("ld").await.expect("pushed");
    assert_eq!(texts(&publisher), ["ld"]);
    text.finish().await.expect("finished");
    assert_eq!(texts(&publisher), [""; 0], "nothing was left");
}

#[tokio::test(start_paused = true)]
async fn a_line_is_published_when_it_ends_and_so_is_much_text() {
    let publisher = Publisher::of_its_queue_alone();
    let mut text = ModelText::new(&publisher);
    text.push("a").await.expect("pushed");
    text.push("b").await.expect("pushed");
    text.push("c\nd\ne").await.expect("pushed");
    assert_eq!(texts(&publisher), ["a", "bc\nd\n"]);
    let much = "x".repeat(LARGE_BYTES);
    text.push(&much).await.expect("pushed");
    assert_eq!(texts(&publisher), [format!("e{much}")]);
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
async fn however_it_is_cut_it_is_the_same_text() {
    let publisher = Publisher::of_its_queue_alone();
    let whole = "Ein 😀 für\r\n\nalle: ∀x∃y…\n".repeat(4000);
    let mut text = ModelText::new(&publisher);
    let mut rest = whole.as_str();
    let mut pushed = 0;
    while !rest.is_empty() {
        // From one byte to more than an event takes.
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
    let publisher = Publisher::of_its_queue_alone();
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
async fn parallel_answers_are_told_apart_by_their_names() {
    let publisher = Publisher::of_its_queue_alone();
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
        UnusableName(MAX_NAME_BYTES + 1)
    );
}

#[derive(Debug, thiserror::Error)]
#[error("the model is overloaded")]
struct Overloaded;

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_or_is_given_up_has_published_what_it_had() {
    let publisher = Publisher::of_its_queue_alone();
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
    let given_up = tokio::time::timeout(Duration::from_millis(10), text.forward(endless));
    given_up.await.expect_err("it never ends");
    assert_eq!(texts(&publisher), ["a"], "b may still be followed by more");
    drop(text);
    assert_eq!(
        texts(&publisher),
        ["b"],
        "published while it is dropped, without any wait"
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
async fn a_full_queue_holds_the_text_up_and_changes_nothing_of_it() {
    let publisher = Publisher::of_its_queue_alone();
    fill(&publisher);
    let mut text = ModelText::new(&publisher);
    let delta = "y".repeat(1000);
    for _ in 0..HELD_BYTES / 1000 {
        text.push(&delta).await.expect("held");
    }
    let full = tokio::time::timeout(Duration::from_secs(1), text.push(&delta));
    full.await.expect_err("too much is held");
    drop(publisher.take_waiting());
    text.push("end").await.expect("there is room");
    text.finish().await.expect("finished");
    let whole = delta.repeat(HELD_BYTES / 1000 + 1) + "end";
    assert_eq!(texts(&publisher).concat(), whole);

    fill(&publisher);
    let mut text = ModelText::new(&publisher);
    text.push("lost").await.expect("held");
    drop(text);
    let told = publisher.take_waiting().pop().expect("a gap");
    assert_eq!(
        (&told["kind"], &told["count"], &told["bytes"]),
        (&"gap".into(), &1.into(), &4.into()),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_has_ended_is_told_to_whoever_pushes() {
    let publisher = Publisher::of_its_queue_alone();
    let mut text = ModelText::new(&publisher);
    text.push("a").await.expect("pushed");
    text.push("b").await.expect("held");
    publisher.close(Duration::ZERO).await.expect("closed");
    sleep(2 * LINGER).await;
    for _ in 0..3 {
        let told = text.push("c").await;
        assert!(
            matches!(told, Err(PublishError::Closed | PublishError::Stopped(_))),
            "{told:?}"
        );
    }
}
