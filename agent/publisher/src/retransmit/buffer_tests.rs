//! What the buffer keeps, in memory and on disk.

use std::path::Path;

use uuid::Uuid;

use super::buffer::{BufferRead, RetransmitBuffer};
use crate::options::Fsync;
use crate::queue::batch::Batch;
use crate::spool::directory;
use crate::spool::writer::Spool;

fn batch(first: u64, count: u64) -> Batch {
    let lines: Vec<u8> = (first..first + count)
        .flat_map(|seq| format!("{seq}\n").into_bytes())
        .collect();
    Batch::new(first, count, lines)
}

fn body(buffer: &mut RetransmitBuffer, seq: u64) -> Option<String> {
    match buffer.read_from(seq)? {
        BufferRead::Batch(batch) => Some(String::from_utf8_lossy(&batch.body).into_owned()),
        hole => Some(format!("{hole:?}")),
    }
}

fn spooled(folder: &Path, cap: u64) -> RetransmitBuffer {
    let (spool, recovered) =
        Spool::open(folder, Uuid::nil(), 0, cap, Fsync::Never).expect("a spool");
    RetransmitBuffer::with_spool(1 << 20, spool, recovered)
}

#[test]
fn an_event_leaves_only_once_it_is_durable() {
    let mut buffer = RetransmitBuffer::new(1 << 20);
    buffer.push(batch(1, 10));
    buffer.push(batch(11, 5));
    buffer.release(9);
    assert_eq!(body(&mut buffer, 10).expect("kept"), "10\n");
    buffer.release(10);
    assert_eq!(body(&mut buffer, 10), None);
    assert_eq!(body(&mut buffer, 13).expect("kept"), "13\n14\n15\n");
    assert_eq!(body(&mut buffer, 16), None);
    buffer.release(15);
    assert_eq!((buffer.pinned.cost, buffer.batches()), (0, 0));
}

#[test]
fn memory_bounds_the_buffer_by_batch_cost() {
    let mut buffer = RetransmitBuffer::new(batch(1, 1).cost() * 2);
    for seq in 1..=2 {
        assert!(buffer.has_room());
        buffer.push(batch(seq, 1));
    }
    assert!(!buffer.has_room());
    buffer.release(1);
    assert!(buffer.has_room());
}

#[test]
fn the_next_process_continues_the_spool() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut one = spooled(folder.path(), 1 << 20);
    for first in (1..=91).step_by(10) {
        one.push(batch(first, 10));
    }
    one.release(25);
    let (seal, identity) = (one.seal(), one.spool().expect("spooled").identity());
    drop(one);
    let mut two = spooled(folder.path(), 1 << 20);
    let (producer, epoch) = two.spool().expect("spooled").identity();
    assert_eq!((two.seal(), producer), (seal, identity.0));
    assert!(epoch > identity.1);
    assert_eq!(body(&mut two, 99).expect("kept"), "99\n100\n");
    assert_eq!(two.push(batch(7, 1)).first, 101);
}

#[test]
fn a_full_spool_has_room_again_once_whole_segments_are_durable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut buffer = spooled(folder.path(), 16_000);
    let mut last = 0;
    while buffer.has_room() {
        last = buffer.push(batch(1, 50)).last();
    }
    let files = || std::fs::read_dir(folder.path()).expect("a folder").count();
    assert!(files() > 8, "{}", files());
    buffer.release(last - 1);
    assert!(buffer.has_room());
    buffer.release(last);
    assert_eq!(files(), 2, "the newest segment and the lock");
    drop(buffer);
    assert_eq!(spooled(folder.path(), 16_000).seal().events, last);
}

#[test]
fn memory_replaces_an_unwritable_spool_and_its_loss_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (inner, away) = (folder.path().join("spool"), folder.path().join("away"));
    let mut buffer = spooled(&inner, 1 << 20);
    buffer.push(batch(1, 10));
    buffer.spool().expect("spooled").close_segment();
    std::fs::rename(&inner, &away).expect("away");
    buffer.push(batch(11, 10));
    buffer.push(batch(21, 10));
    assert_eq!(buffer.spooled_up_to(), 10);
    assert_eq!(body(&mut buffer, 11).expect("kept").lines().count(), 10);

    std::fs::rename(&away, &inner).expect("back");
    while buffer.spool().expect("spooled").has_failed() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    buffer.push(batch(31, 10));
    buffer.release(15);
    assert_eq!(buffer.spooled_up_to(), 10);
    drop(buffer);
    let mut next = spooled(&inner, 1 << 20);
    assert_eq!(next.seal().events, 40);
    let hole = BufferRead::Hole {
        first: 11,
        last: 30,
        bytes: 40,
    };
    assert_eq!(next.read_from(12), Some(hole));
    assert_eq!(body(&mut next, 31).expect("kept").lines().count(), 10);
}

#[test]
fn unreadable_events_are_a_hole_of_known_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut buffer = spooled(folder.path(), 1 << 20);
    buffer.push(batch(1, 10));
    buffer.push(batch(11, 10));
    buffer.hot.shrink_to(0);
    let file = &directory::segments(folder.path()).expect("one")[0];
    let mut bytes = std::fs::read(file).expect("bytes");
    bytes[140] ^= 1;
    std::fs::write(file, bytes).expect("written");
    let hole = buffer.read_from(3).expect("an entry");
    assert!(
        matches!(
            hole,
            BufferRead::Hole {
                first: 1,
                last: 10,
                ..
            }
        ),
        "{hole:?}"
    );
    assert_eq!(body(&mut buffer, 12).expect("kept").lines().count(), 9);
}

#[test]
fn events_that_only_redis_has_keep_their_seqs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut buffer = spooled(folder.path(), 1 << 20);
    buffer.push(batch(1, 10));
    let inherited = buffer.seal();
    // Redis holds five more events of the previous process; two new batches are here already.
    buffer.push(batch(1, 3));
    buffer.push(batch(4, 3));
    buffer.renumber_behind(15, inherited);
    assert_eq!(body(&mut buffer, 10).expect("kept"), "10\n");
    assert!(body(&mut buffer, 11).expect("an entry").starts_with("Hole"));
    assert_eq!(body(&mut buffer, 16).expect("kept"), "1\n2\n3\n");
    assert_eq!(body(&mut buffer, 19).expect("kept"), "4\n5\n6\n");
    assert_eq!(body(&mut buffer, 22), None);
}
