//! What the backlog keeps, in memory and on files.

use std::path::Path;

use uuid::Uuid;

use super::*;
use crate::target::Fsync;

fn batch(first: u64, count: u64) -> Batch {
    let lines: Vec<u8> = (first..first + count)
        .flat_map(|seq| format!("{seq}\n").into_bytes())
        .collect();
    Batch::new(first, count, lines)
}

fn body(backlog: &mut Backlog, seq: u64) -> Option<String> {
    match backlog.from(seq)? {
        Found::Batch(batch) => Some(String::from_utf8_lossy(&batch.body).into_owned()),
        hole => Some(format!("{hole:?}")),
    }
}

fn spooled(folder: &Path, cap: u64) -> Backlog {
    let (spool, chain) = Spool::open(folder, Uuid::nil(), 0, cap, Fsync::Never).expect("a spool");
    Backlog::spooled(1 << 20, spool, chain)
}

#[test]
fn an_event_leaves_only_when_it_is_durable() {
    let mut backlog = Backlog::new(1 << 20);
    backlog.push(batch(1, 10));
    backlog.push(batch(11, 5));
    backlog.release(9);
    assert_eq!(body(&mut backlog, 10).expect("kept"), "10\n");
    backlog.release(10);
    assert_eq!(body(&mut backlog, 10), None);
    assert_eq!(body(&mut backlog, 13).expect("kept"), "13\n14\n15\n");
    assert_eq!(body(&mut backlog, 16), None);
    backlog.release(15);
    assert_eq!((backlog.pinned.cost, backlog.entries.len()), (0, 0));
}

#[test]
fn it_is_bounded_by_what_it_costs() {
    let mut backlog = Backlog::new(batch(1, 1).cost() * 2);
    for seq in 1..=2 {
        assert!(backlog.has_room());
        backlog.push(batch(seq, 1));
    }
    assert!(!backlog.has_room());
    backlog.release(1);
    assert!(backlog.has_room());
}

#[test]
fn the_next_process_goes_on_with_what_is_left() {
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
fn a_spool_at_its_cap_has_no_room_until_whole_segments_are_durable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut backlog = spooled(folder.path(), 16_000);
    let mut last = 0;
    while backlog.has_room() {
        last = backlog.push(batch(1, 50)).last();
    }
    let files = || std::fs::read_dir(folder.path()).expect("a folder").count();
    assert!(files() > 8, "{}", files());
    backlog.release(last - 1);
    assert!(backlog.has_room());
    backlog.release(last);
    assert_eq!(files(), 2, "the newest segment and the lock");
    drop(backlog);
    assert_eq!(spooled(folder.path(), 16_000).seal().events, last);
}

#[test]
fn memory_serves_while_the_folder_does_not_and_what_dies_with_it_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (inner, away) = (folder.path().join("spool"), folder.path().join("away"));
    let mut backlog = spooled(&inner, 1 << 20);
    backlog.push(batch(1, 10));
    backlog.spool().expect("spooled").close_segment();
    std::fs::rename(&inner, &away).expect("away");
    backlog.push(batch(11, 10));
    backlog.push(batch(21, 10));
    assert_eq!(backlog.spooled_up_to(), 10);
    assert_eq!(body(&mut backlog, 11).expect("kept").lines().count(), 10);

    std::fs::rename(&away, &inner).expect("back");
    while backlog.spool().expect("spooled").has_failed() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    backlog.push(batch(31, 10));
    backlog.release(15);
    assert_eq!(backlog.spooled_up_to(), 10);
    drop(backlog);
    let mut next = spooled(&inner, 1 << 20);
    assert_eq!(next.seal().events, 40);
    let hole = Found::Hole {
        first: 11,
        last: 30,
        bytes: 40,
    };
    assert_eq!(next.from(12), Some(hole));
    assert_eq!(body(&mut next, 31).expect("kept").lines().count(), 10);
}

#[test]
fn what_cannot_be_read_again_is_a_hole_of_known_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut backlog = spooled(folder.path(), 1 << 20);
    backlog.push(batch(1, 10));
    backlog.push(batch(11, 10));
    backlog.hot.shrink_to(0);
    let file = &super::super::spool::folder::segments(folder.path()).expect("one")[0];
    let mut bytes = std::fs::read(file).expect("bytes");
    bytes[140] ^= 1;
    std::fs::write(file, bytes).expect("written");
    let hole = backlog.from(3).expect("an entry");
    assert!(
        matches!(
            hole,
            Found::Hole {
                first: 1,
                last: 10,
                ..
            }
        ),
        "{hole:?}"
    );
    assert_eq!(body(&mut backlog, 12).expect("kept").lines().count(), 9);
}

#[test]
fn what_redis_has_and_the_disk_lost_keeps_its_seqs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut backlog = spooled(folder.path(), 1 << 20);
    backlog.push(batch(1, 10));
    let inherited = backlog.seal();
    // Redis holds five more of the process before; two new batches are here already.
    backlog.push(batch(1, 3));
    backlog.push(batch(4, 3));
    backlog.go_behind(15, inherited);
    assert_eq!(body(&mut backlog, 10).expect("kept"), "10\n");
    assert!(
        body(&mut backlog, 11)
            .expect("an entry")
            .starts_with("Hole")
    );
    assert_eq!(body(&mut backlog, 16).expect("kept"), "1\n2\n3\n");
    assert_eq!(body(&mut backlog, 19).expect("kept"), "4\n5\n6\n");
    assert_eq!(body(&mut backlog, 22), None);
}
