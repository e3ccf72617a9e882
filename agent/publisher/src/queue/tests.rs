//! How the queue cuts batches, bounds what waits, drops events and ends.

use std::time::Duration;

use runcast_common::protocol::event::{Kind, Status, StatusChange, Text};
use runcast_common::protocol::limits::{MAX_ENTRY_BYTES, MAX_ENTRY_EVENTS};
use runcast_common::protocol::seal::Seal;

use super::batch::Batch;
use super::event_queue::{Queue, QueueItem};
use super::state::MAX_EVENTS;
use crate::error::{PublishError, Stopped};

fn text_payload(text: &str) -> Text<'_> {
    Text {
        text: Some(text),
        ..Text::default()
    }
}

fn take_batch(queue: &Queue, take_open: bool) -> Batch {
    match queue.take(take_open) {
        QueueItem::Batch(batch) => batch,
        other => panic!("expected a batch, got {other:?}"),
    }
}

#[test]
fn a_batch_closes_at_its_event_limit_and_the_open_one_is_taken_only_on_request() {
    let queue = Queue::new(3, 0, &[Kind::Log]);
    assert_eq!(queue.take(true), QueueItem::Empty);
    for seq in 1..=MAX_ENTRY_EVENTS as u64 + 1 {
        assert_eq!(
            queue
                .try_push(Kind::Output, &text_payload("x"))
                .expect("room"),
            seq
        );
    }
    let full = take_batch(&queue, false);
    assert_eq!((full.first, full.count), (1, MAX_ENTRY_EVENTS as u64));
    assert!(
        full.body
            .starts_with(b"{\"kind\":\"output\",\"variation\":3,")
    );
    assert_eq!(queue.take(false), QueueItem::Open);
    let rest = take_batch(&queue, true);
    assert_eq!((rest.first, rest.count), (full.last() + 1, 1));
    queue.end(None).expect("ended");
    assert_eq!(queue.take(false), QueueItem::Ended);
    assert!(matches!(
        queue.try_push(Kind::Log, &text_payload("late")),
        Err(PublishError::Closed)
    ));
}

#[test]
fn a_batch_closes_at_its_byte_limit_and_a_large_event_forms_its_own_batch() {
    let queue = Queue::new(0, 0, &[Kind::Log]);
    let large = "x".repeat(MAX_ENTRY_BYTES - 1000);
    for text in ["a", &large, "b", &large, &large] {
        queue
            .try_push(Kind::Output, &text_payload(text))
            .expect("room");
    }
    let mut firsts = Vec::new();
    while let QueueItem::Batch(batch) = queue.take(true) {
        assert!(batch.body.len() <= MAX_ENTRY_BYTES);
        assert_eq!(
            batch.body.iter().filter(|byte| **byte == b'\n').count() as u64,
            batch.count
        );
        firsts.push((batch.first, batch.count));
    }
    assert_eq!(firsts, [(1, 3), (4, 1), (5, 1)]);
}

#[test]
fn an_invalid_event_gets_no_seq() {
    let queue = Queue::new(0, 0, &[Kind::Log]);
    queue.try_push(Kind::Log, &3).expect_err("not an object");
    assert_eq!(
        queue.try_push(Kind::Log, &text_payload("a")).expect("room"),
        1
    );
    assert_eq!(take_batch(&queue, true).count, 1);
}

#[test]
fn the_last_status_carries_the_seal_of_all_lines_before_it() {
    let queue = Queue::new(0, 0, &[Kind::Log]);
    queue.try_push(Kind::Log, &text_payload("a")).expect("room");
    queue.try_push(Kind::Log, &text_payload("b")).expect("room");
    queue
        .end(Some(StatusChange::to(Status::Succeeded)))
        .expect("ended");
    assert_eq!(queue.last_seq(), 3);
    let lines = take_batch(&queue, true);
    let mut seal = Seal::default();
    seal.add_lines(lines.count, &lines.body);
    assert_eq!(queue.take(true), QueueItem::Last);
    let last = queue.take_last(seal).expect("a status");
    let change: StatusChange = serde_json::from_slice(&last.body).expect("a status");
    assert_eq!((change.seal, last.first), (Some(seal), 3));
    assert_eq!(queue.take(true), QueueItem::Ended);
}

#[tokio::test]
async fn a_full_queue_rejects_or_waits_and_returns_when_the_sender_dies() {
    let queue = Queue::new(0, 0, &[Kind::Log]);
    while queue.try_push(Kind::Log, &text_payload("x")).is_ok() {}
    assert!(matches!(
        queue.try_push(Kind::Log, &text_payload("x")),
        Err(PublishError::Full)
    ));
    let (pushed, _batch) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(5), async {
            queue
                .push_when_room(Kind::Log, &text_payload("later"))
                .await
        }),
        async { queue.take(false) }
    );
    assert_eq!(
        pushed.expect("in time").expect("room"),
        MAX_EVENTS as u64 + 1
    );
    while queue.try_push(Kind::Log, &text_payload("x")).is_ok() {}
    let (refused, ()) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(5), async {
            queue
                .push_when_room(Kind::Log, &text_payload("never"))
                .await
        }),
        async { queue.stop(Stopped::Died) }
    );
    assert!(matches!(
        refused.expect("in time"),
        Err(PublishError::Stopped(Stopped::Died))
    ));
}

/// Takes everything and checks that seqs are dense. Returns the lines and the number of dropped
/// events.
fn drain(queue: &Queue) -> (Vec<serde_json::Value>, u64) {
    let (mut lines, mut dropped, mut next) = (Vec::new(), 0, 1);
    while let QueueItem::Batch(batch) = queue.take(true) {
        assert_eq!(batch.first, next);
        next += batch.count;
        for line in batch.body.split_inclusive(|byte| *byte == b'\n') {
            let line: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            match line["kind"].as_str() {
                Some("gap") => {
                    assert_eq!(line["reason"], "overflow");
                    dropped += line["count"].as_u64().expect("a count");
                }
                _ => lines.push(line),
            }
        }
    }
    assert_eq!(queue.last_seq(), next - 1);
    (lines, dropped)
}

#[test]
fn a_full_buffer_drops_the_oldest_logs_and_counts_them() {
    let queue = Queue::new(0, 0, &[Kind::Log]);
    queue
        .try_push(Kind::Output, &text_payload("first"))
        .expect("room");
    for _ in 1..MAX_EVENTS {
        queue
            .try_push(Kind::Log, &text_payload("old"))
            .expect("room");
    }
    assert!(
        queue.try_push(Kind::Log, &text_payload("new")).is_err(),
        "the buffer has room"
    );
    queue.set_drops_oldest(true);
    for _ in 0..3 * MAX_EVENTS {
        queue
            .try_push(Kind::Log, &text_payload("new"))
            .expect("drops");
    }
    assert!(queue.last_seq() <= MAX_EVENTS as u64 + 2);
    let (lines, dropped) = drain(&queue);
    assert_eq!(lines[0]["text"], "first", "output is never dropped");
    assert_eq!(lines.len() as u64 + dropped, 4 * MAX_EVENTS as u64);
    assert!(lines.len() > MAX_EVENTS / 2);
}

#[test]
fn a_full_buffer_makes_output_wait_and_drops_logs_behind_it() {
    let queue = Queue::new(0, 0, &[Kind::Log]);
    while queue.try_push(Kind::Output, &text_payload("x")).is_ok() {}
    queue.set_drops_oldest(true);
    assert!(matches!(
        queue.try_push(Kind::Output, &text_payload("x")),
        Err(PublishError::Full)
    ));
    for _ in 0..1000 {
        queue
            .try_push(Kind::Log, &text_payload("gone"))
            .expect("dropped at once");
    }
    let (lines, dropped) = drain(&queue);
    assert_eq!((lines.len(), dropped), (MAX_EVENTS, 1000));
}

#[test]
fn lost_events_become_a_gap_in_their_place_and_take_no_room() {
    let queue = Queue::new(0, 0, &[]);
    queue
        .try_push(Kind::Output, &text_payload("before"))
        .expect("room");
    queue.note_lost(1, 10);
    queue.note_lost(2, 20);
    assert_eq!(queue.last_seq(), 2, "one gap for both");
    queue
        .try_push(Kind::Output, &text_payload("after"))
        .expect("room");
    assert_eq!(queue.last_seq(), 3);
    let before = take_batch(&queue, true);
    assert_eq!((before.first, before.count), (1, 1));
    let after = take_batch(&queue, true);
    assert_eq!((after.first, after.count), (2, 2));
    let lines = String::from_utf8(after.body.to_vec()).expect("text");
    let (gap, rest) = lines.split_once('\n').expect("two lines");
    assert!(
        gap.contains(r#""count":3,"bytes":30,"reason":"overflow""#) && rest.contains("after"),
        "{lines}"
    );

    // Also where nothing follows, but never after the end.
    queue.note_lost(1, 1);
    queue.end(None).expect("ended");
    queue.note_lost(1, 1);
    assert_eq!(take_batch(&queue, true).count, 1);
    assert_eq!(queue.take(true), QueueItem::Ended);
}
