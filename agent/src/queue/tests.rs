//! How the queue cuts batches, bounds what waits, and ends.

use std::time::Duration;

use runcast_common::event::{Status, Text};

use super::*;

fn say(text: &str) -> Text<'_> {
    Text {
        text: Some(text),
        ..Text::default()
    }
}

fn taken(queue: &Queue, partial: bool) -> Batch {
    match queue.take(partial) {
        Taken::Batch(batch) => batch,
        other => panic!("no batch but {other:?}"),
    }
}

#[test]
fn a_batch_is_closed_by_count_and_an_open_one_must_be_asked_for() {
    let queue = Queue::new(3);
    assert_eq!(queue.take(true), Taken::Empty);
    for seq in 1..=MAX_ENTRY_EVENTS as u64 + 1 {
        assert_eq!(queue.try_push(Kind::Output, &say("x")).expect("room"), seq);
    }
    let full = taken(&queue, false);
    assert_eq!((full.first, full.count), (1, MAX_ENTRY_EVENTS as u64));
    assert!(
        full.body
            .starts_with(b"{\"kind\":\"output\",\"variation\":3,")
    );
    assert_eq!(queue.take(false), Taken::Partial);
    let rest = taken(&queue, true);
    assert_eq!((rest.first, rest.count), (full.last() + 1, 1));
    queue.end(None).expect("ended");
    assert_eq!(queue.take(false), Taken::Ended);
    assert!(matches!(
        queue.try_push(Kind::Log, &say("late")),
        Err(PublishError::Closed)
    ));
}

#[test]
fn a_batch_is_closed_by_bytes_and_a_large_event_travels_alone() {
    let queue = Queue::new(0);
    let large = "x".repeat(MAX_ENTRY_BYTES - 1000);
    for text in ["a", &large, "b", &large, &large] {
        queue.try_push(Kind::Output, &say(text)).expect("room");
    }
    let mut firsts = Vec::new();
    while let Taken::Batch(batch) = queue.take(true) {
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
fn what_cannot_be_written_takes_no_seq() {
    let queue = Queue::new(0);
    queue.try_push(Kind::Log, &3).expect_err("not an object");
    assert_eq!(queue.try_push(Kind::Log, &say("a")).expect("room"), 1);
    assert_eq!(taken(&queue, true).count, 1);
}

#[test]
fn the_last_status_carries_the_seal_of_all_lines_before_it() {
    let queue = Queue::new(0);
    queue.try_push(Kind::Log, &say("a")).expect("room");
    queue.try_push(Kind::Log, &say("b")).expect("room");
    queue
        .end(Some(StatusChange::to(Status::Succeeded)))
        .expect("ended");
    let body = taken(&queue, true).body;
    let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
    let mut seal = Seal::default();
    lines[..2].iter().for_each(|line| seal.add(line));
    let change: StatusChange = serde_json::from_slice(lines[2]).expect("a status");
    assert_eq!(change.seal, Some(seal));
}

#[tokio::test]
async fn a_full_queue_says_so_waits_for_room_and_never_hangs_on_a_dead_sender() {
    let queue = Queue::new(0);
    while queue.try_push(Kind::Log, &say("x")).is_ok() {}
    assert!(matches!(
        queue.try_push(Kind::Log, &say("x")),
        Err(PublishError::Full)
    ));
    let (pushed, _batch) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(5), async {
            queue.push_when_room(Kind::Log, &say("later")).await
        }),
        async { queue.take(false) }
    );
    assert_eq!(
        pushed.expect("in time").expect("room"),
        MAX_EVENTS as u64 + 1
    );
    while queue.try_push(Kind::Log, &say("x")).is_ok() {}
    let (refused, ()) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(5), async {
            queue.push_when_room(Kind::Log, &say("never")).await
        }),
        async { queue.stop(Stopped::Died) }
    );
    assert!(matches!(
        refused.expect("in time"),
        Err(PublishError::Stopped(Stopped::Died))
    ));
}
