//! How the send window reads the replies of the append script.

use std::path::Path;

use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::seal::Seal;
use runcast_common::scripts::{AppendOutcome, AppendReply};
use uuid::Uuid;

use super::buffer::RetransmitBuffer;
use super::send_window::{NextStep, Request, SendWindow};
use crate::options::Fsync;
use crate::queue::batch::Batch;
use crate::spool::writer::Spool;

/// Calls that a connection to Redis has in flight.
const MAX_IN_FLIGHT: usize = 8;

fn reply(outcome: AppendOutcome, durable: u64) -> AppendReply {
    AppendReply {
        outcome,
        last: EventId::ZERO,
        durable,
    }
}

/// A window and the buffer that it reads.
struct Producer {
    buffer: RetransmitBuffer,
    window: SendWindow,
}

impl Producer {
    fn new(buffer: RetransmitBuffer) -> Self {
        let window = SendWindow::new(&buffer, 0);
        Self { buffer, window }
    }

    /// Holds batches of ten events up to `newest`.
    fn holding(newest: u64) -> Self {
        let mut producer = Self::new(RetransmitBuffer::new(1 << 20));
        for first in (1..=newest).step_by(10) {
            producer.push(Batch::new(first, 10, b"x\n".repeat(10)));
        }
        producer
    }

    fn push(&mut self, batch: Batch) {
        self.buffer.push(batch);
    }

    /// Sends one batch and returns the seq of its first event.
    fn send(&mut self, in_flight: usize) -> Option<u64> {
        let batch = self
            .window
            .next_batch(&mut self.buffer, in_flight, MAX_IN_FLIGHT)?;
        self.window.mark_sent(&batch);
        Some(batch.first)
    }

    fn on_reply(&mut self, request: Request, reply: &AppendReply) -> NextStep {
        self.window.on_reply(&mut self.buffer, request, reply)
    }

    fn stored(&mut self, first: u64, stored: u64, durable: u64) {
        let stored = reply(AppendOutcome::Stored { stored }, durable);
        let step = self.on_reply(Request::Append { first }, &stored);
        assert_eq!(step, NextStep::Advanced);
    }

    fn seqs(&self) -> (u64, u64) {
        (self.window.acked(), self.window.durable())
    }
}

#[test]
fn batches_are_sent_in_order_within_the_window() {
    let mut producer = Producer::holding(30);
    assert_eq!(producer.send(0), Some(1));
    assert_eq!(producer.send(1), Some(11));
    assert_eq!(producer.send(MAX_IN_FLIGHT), None, "the window is full");
    producer.stored(1, 10, 5);
    assert_eq!(producer.seqs(), (10, 5));
    assert_eq!(producer.send(1), Some(21));
    assert_eq!(producer.send(2), None, "all is sent");
    assert!(
        producer.window.is_sent(&producer.buffer) && !producer.window.is_durable(&producer.buffer)
    );
}

#[test]
fn a_gap_below_acked_rewinds_and_probes_with_one_batch() {
    let mut producer = Producer::holding(50);
    for in_flight in 0..4 {
        producer.send(in_flight);
    }
    producer.stored(1, 10, 0);
    producer.stored(11, 20, 0);
    // A flush: the script has started a new epoch already, so the resend must not claim another.
    let gap = reply(AppendOutcome::Gap { expected: 1 }, 0);
    assert_eq!(
        producer.on_reply(Request::Append { first: 21 }, &gap),
        NextStep::Rewound
    );
    assert_eq!(producer.window.acked(), 0);
    assert_eq!(producer.send(0), Some(1));
    assert_eq!(producer.send(1), None, "probing");
    producer.stored(1, 10, 0);
    assert_eq!(producer.send(1), Some(11));
    assert_eq!(producer.send(2), Some(21));
}

#[test]
fn durable_events_are_never_resent() {
    let mut producer = Producer::holding(40);
    for in_flight in 0..4 {
        producer.send(in_flight);
    }
    producer.stored(1, 20, 15);
    // This call was sent before the producer knew that 15 were durable.
    let gap = reply(AppendOutcome::Gap { expected: 1 }, 0);
    producer.on_reply(Request::Append { first: 21 }, &gap);
    assert_eq!(producer.seqs(), (15, 15));
    assert_eq!(producer.send(0), Some(16), "within a batch");
}

#[test]
fn a_loss_seen_by_a_state_query_is_claimed_by_the_resend() {
    let mut producer = Producer::holding(20);
    producer.send(0);
    producer.send(1);
    producer.stored(11, 20, 0);
    let lost = reply(AppendOutcome::Stored { stored: 10 }, 0);
    assert_eq!(producer.on_reply(Request::State, &lost), NextStep::Rewound);
    assert_eq!(producer.window.acked(), 20, "the script must see it");
    assert_eq!(producer.send(0), Some(11));
    producer.stored(11, 20, 20);
    assert!(producer.window.is_durable(&producer.buffer));
}

#[test]
fn a_reconnect_resends_unacknowledged_events_and_skips_what_redis_has() {
    let mut producer = Producer::holding(50);
    for in_flight in 0..5 {
        producer.send(in_flight);
    }
    producer.stored(1, 10, 0);
    producer.window.on_disconnect();
    let state = reply(AppendOutcome::Stored { stored: 30 }, 0);
    assert_eq!(
        producer.on_reply(Request::State, &state),
        NextStep::Advanced
    );
    assert_eq!(producer.send(0), Some(31));
}

#[test]
fn full_waits_and_resends_the_same_batch() {
    let mut producer = Producer::holding(30);
    for in_flight in 0..3 {
        producer.send(in_flight);
    }
    producer.stored(1, 10, 0);
    assert_eq!(
        producer.on_reply(
            Request::Append { first: 11 },
            &reply(AppendOutcome::Full, 10)
        ),
        NextStep::Full
    );
    assert_eq!(producer.window.durable(), 10);
    assert_eq!(producer.send(0), Some(11));
    assert_eq!(producer.send(1), None);
}

#[test]
fn fenced_is_final() {
    let mut producer = Producer::holding(10);
    let fenced = reply(AppendOutcome::Fenced { by: 9 }, 0);
    assert_eq!(
        producer.on_reply(Request::State, &fenced),
        NextStep::Fenced { by: 9 }
    );
}

#[test]
fn a_deleted_run_is_final() {
    let mut producer = Producer::holding(10);
    let gone = reply(AppendOutcome::Gone, 0);
    assert_eq!(producer.on_reply(Request::State, &gone), NextStep::Gone);
}

fn spooled(folder: &Path) -> RetransmitBuffer {
    let (spool, recovered) =
        Spool::open(folder, Uuid::nil(), 0, 1 << 20, Fsync::Never).expect("a spool");
    RetransmitBuffer::with_spool(1 << 20, spool, recovered)
}

#[test]
fn events_that_the_previous_process_stored_are_not_mistaken_for_own_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut before = spooled(folder.path());
    before.push(Batch::new(1, 2, b"one\ntwo\n".to_vec()));
    let mut producer = Producer::new(spooled(folder.path()));
    assert!(producer.window.awaits_first_reply());
    // Redis is unreachable for us: our events get seqs that the other process uses and stores.
    producer.push(Batch::new(3, 1, b"own\n".to_vec()));
    before.push(Batch::new(3, 2, b"three\nfour\n".to_vec()));
    producer.window.on_stale_reply(
        &mut producer.buffer,
        &reply(AppendOutcome::Stored { stored: 4 }, 4),
    );
    let step = producer.on_reply(
        Request::State,
        &reply(AppendOutcome::Stored { stored: 4 }, 4),
    );
    assert_eq!(step, NextStep::Advanced);
    assert!(!producer.window.is_durable(&producer.buffer));
    let batch = producer
        .window
        .next_batch(&mut producer.buffer, 0, MAX_IN_FLIGHT)
        .expect("own events");
    assert_eq!((batch.first, &batch.body[..]), (5, &b"own\n"[..]));
    // The seal covers all of them.
    let mut all = Seal::default();
    all.add_lines(5, b"one\ntwo\nthree\nfour\nown\n");
    assert_eq!(producer.buffer.seal(), all);
}
