//! How the ledger reads the answers of the script.

use std::path::Path;

use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use super::*;
use crate::spool::Spool;
use crate::target::Fsync;

fn answer(outcome: Outcome, durable: u64) -> Appended {
    Appended {
        outcome,
        last: EventId::ZERO,
        durable,
    }
}

/// A ledger that holds batches of ten events up to `newest`.
fn ledger(newest: u64) -> Ledger {
    let mut ledger = Ledger::new(Backlog::new(1 << 20), 0);
    for first in (1..=newest).step_by(10) {
        ledger.accept(Batch::new(first, 10, b"x\n".repeat(10)));
    }
    ledger
}

/// Sends one batch and gives the seq of its first event.
fn send(ledger: &mut Ledger, in_flight: usize) -> Option<u64> {
    let batch = ledger.next_to_send(in_flight, 8)?;
    ledger.sent(&batch);
    Some(batch.first)
}

fn stored(ledger: &mut Ledger, first: u64, stored: u64, durable: u64) {
    let verdict = ledger.answered(
        Asked::Append { first },
        &answer(Outcome::Stored { stored }, durable),
    );
    assert_eq!(verdict, Verdict::Advanced);
}

#[test]
fn batches_go_out_in_order_within_the_window() {
    let mut ledger = ledger(30);
    assert_eq!(send(&mut ledger, 0), Some(1));
    assert_eq!(send(&mut ledger, 1), Some(11));
    assert_eq!(send(&mut ledger, 8), None, "the window is full");
    stored(&mut ledger, 1, 10, 5);
    assert_eq!((ledger.acked(), ledger.durable()), (10, 5));
    assert_eq!(send(&mut ledger, 1), Some(21));
    assert_eq!(send(&mut ledger, 2), None, "all is sent");
    assert!(ledger.is_sent() && !ledger.is_durable());
}

#[test]
fn a_gap_below_acked_lowers_it_and_starts_over_with_one_batch() {
    let mut ledger = ledger(50);
    for in_flight in 0..4 {
        send(&mut ledger, in_flight);
    }
    stored(&mut ledger, 1, 10, 0);
    stored(&mut ledger, 11, 20, 0);
    // A flush: the script has claimed a rebirth already, so the resend must not claim another.
    let gap = answer(Outcome::Gap { expected: 1 }, 0);
    assert_eq!(
        ledger.answered(Asked::Append { first: 21 }, &gap),
        Verdict::Rewound
    );
    assert_eq!(ledger.acked(), 0);
    assert_eq!(send(&mut ledger, 0), Some(1));
    assert_eq!(send(&mut ledger, 1), None, "probing");
    stored(&mut ledger, 1, 10, 0);
    assert_eq!(send(&mut ledger, 1), Some(11));
    assert_eq!(send(&mut ledger, 2), Some(21));
}

#[test]
fn what_is_durable_is_never_sent_again() {
    let mut ledger = ledger(40);
    for in_flight in 0..4 {
        send(&mut ledger, in_flight);
    }
    stored(&mut ledger, 1, 20, 15);
    // This call was sent before the producer knew that 15 were durable.
    let gap = answer(Outcome::Gap { expected: 1 }, 0);
    ledger.answered(Asked::Append { first: 21 }, &gap);
    assert_eq!((ledger.acked(), ledger.durable()), (15, 15));
    assert_eq!(send(&mut ledger, 0), Some(16), "within a batch");
}

#[test]
fn a_loss_seen_by_a_poke_is_claimed_by_the_resend() {
    let mut ledger = ledger(20);
    send(&mut ledger, 0);
    send(&mut ledger, 1);
    stored(&mut ledger, 11, 20, 0);
    let lost = answer(Outcome::Stored { stored: 10 }, 0);
    assert_eq!(ledger.answered(Asked::State, &lost), Verdict::Rewound);
    assert_eq!(ledger.acked(), 20, "the script must hear of it");
    assert_eq!(send(&mut ledger, 0), Some(11));
    stored(&mut ledger, 11, 20, 20);
    assert!(ledger.is_durable());
}

#[test]
fn a_reconnect_resends_what_was_not_acknowledged_and_skips_what_redis_has() {
    let mut ledger = ledger(50);
    for in_flight in 0..5 {
        send(&mut ledger, in_flight);
    }
    stored(&mut ledger, 1, 10, 0);
    ledger.disconnected();
    let state = answer(Outcome::Stored { stored: 30 }, 0);
    assert_eq!(ledger.answered(Asked::State, &state), Verdict::Advanced);
    assert_eq!(send(&mut ledger, 0), Some(31));
}

#[test]
fn full_waits_and_starts_over_with_the_same_batch() {
    let mut ledger = ledger(30);
    for in_flight in 0..3 {
        send(&mut ledger, in_flight);
    }
    stored(&mut ledger, 1, 10, 0);
    assert_eq!(
        ledger.answered(Asked::Append { first: 11 }, &answer(Outcome::Full, 10)),
        Verdict::Wait
    );
    assert_eq!(ledger.durable(), 10);
    assert_eq!(send(&mut ledger, 0), Some(11));
    assert_eq!(send(&mut ledger, 1), None);
}

#[test]
fn fenced_is_final() {
    let mut ledger = ledger(10);
    let fenced = answer(Outcome::Fenced { by: 9 }, 0);
    assert_eq!(
        ledger.answered(Asked::State, &fenced),
        Verdict::Fenced { by: 9 }
    );
}

fn spooled(folder: &Path) -> Backlog {
    let (spool, chain) =
        Spool::open(folder, Uuid::nil(), 0, 1 << 20, Fsync::Never).expect("a spool");
    Backlog::spooled(1 << 20, spool, chain)
}

#[test]
fn what_the_process_before_stored_meanwhile_is_not_taken_for_our_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut before = spooled(folder.path());
    before.push(Batch::new(1, 2, b"one\ntwo\n".to_vec()));
    let mut ledger = Ledger::new(spooled(folder.path()), 0);
    assert!(ledger.is_unsure());
    // Redis is away for us: our own events get seqs that the other one uses as well, and stores.
    ledger.accept(Batch::new(3, 1, b"own\n".to_vec()));
    before.push(Batch::new(3, 2, b"three\nfour\n".to_vec()));
    ledger.answered_late(&answer(Outcome::Stored { stored: 4 }, 4));
    let verdict = ledger.answered(Asked::State, &answer(Outcome::Stored { stored: 4 }, 4));
    assert_eq!(verdict, Verdict::Advanced);
    assert!(!ledger.is_durable());
    let batch = ledger.next_to_send(0, 8).expect("our own");
    assert_eq!((batch.first, &batch.body[..]), (5, &b"own\n"[..]));
    // The seal counts all of it.
    let mut all = Seal::default();
    all.add_lines(5, b"one\ntwo\nthree\nfour\nown\n");
    assert_eq!(ledger.backlog().seal(), all);
}
