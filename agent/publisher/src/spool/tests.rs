//! The spool under damage: recovery returns a prefix, or counted holes.

use std::fs;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use runcast_common::protocol::seal::Seal;
use uuid::Uuid;

use super::directory;
use super::recovery::{BatchRef, RecordLocation, RecoveredSpool};
use super::writer::Spool;
use crate::options::Fsync;
use crate::queue::batch::Batch;

const RUN: Uuid = Uuid::from_u128(7);

fn open(folder: &Path, max_bytes: u64) -> (Spool, RecoveredSpool) {
    Spool::open(folder, RUN, 3, max_bytes, Fsync::Never).expect("a spool")
}

fn random_batch(random: &mut SmallRng, first: u64) -> Batch {
    let count = random.random_range(1..20);
    let mut lines = Vec::new();
    for _ in 0..count {
        let length = random.random_range(2..200);
        lines.extend((0..length).map(|_| random.random_range(b' '..=b'~')));
        lines.push(b'\n');
    }
    Batch::new(first, count, lines)
}

/// Writes random batches by up to three processes, one after the other.
fn write(random: &mut SmallRng, folder: &Path) -> Vec<Batch> {
    let mut all: Vec<Batch> = Vec::new();
    for _ in 0..random.random_range(1..=3) {
        let (mut spool, recovered) = open(folder, 80_000);
        let mut seal = recovered.seal;
        for _ in 0..random.random_range(1..30) {
            let batch = random_batch(random, seal.events + 1);
            let before = seal;
            seal.add_lines(batch.count, &batch.body);
            spool.append(before, seal, &batch).expect("written");
            all.push(batch);
        }
    }
    all
}

/// Checks that what is read is what was written, with dense seqs. Returns missing events and bytes.
fn check(spool: &mut Spool, recovered: &RecoveredSpool, written: &[Batch]) -> (u64, u64) {
    let start = recovered.batches.front().map_or(1, |oldest| oldest.first);
    assert!(start == 1 || !recovered.lost.is_empty(), "{recovered:?}");
    let (mut next, mut events, mut bytes) = (start, 0, 0);
    for BatchRef {
        first,
        count,
        location,
    } in recovered.batches.iter().copied()
    {
        assert_eq!(first, next, "dense");
        next += count;
        match location {
            RecordLocation::Disk { segment, offset } => {
                let read = spool.read(segment, offset).expect("readable");
                let one = written.iter().find(|batch| batch.first == first);
                assert_eq!(Some(&read), one);
            }
            RecordLocation::Hole { bytes: lost } => {
                events += count;
                bytes += lost;
            }
            RecordLocation::Memory => panic!("nothing is in memory"),
        }
    }
    assert!(recovered.batches.is_empty() || recovered.seal.events == next - 1);
    (events, bytes)
}

fn body_bytes(batches: &[Batch]) -> u64 {
    let of = |batch: &Batch| batch.body.len() as u64 - batch.count;
    batches.iter().map(of).sum()
}

#[test]
fn damage_never_changes_events_and_lost_ones_are_counted() {
    let seed: u64 = rand::rng().next_u64();
    for case in 0..300 {
        let random = &mut SmallRng::seed_from_u64(seed.wrapping_add(case));
        let folder = tempfile::tempdir().expect("a folder");
        let written = write(random, folder.path());
        let total: u64 = written.iter().map(|batch| batch.count).sum();
        let files = directory::segments(folder.path()).expect("segments");
        let file = &files[random.random_range(0..files.len())];
        let is_last = files.last() == Some(file);
        let mut bytes = fs::read(file).expect("bytes");
        let cut = random.random_range(0..bytes.len());
        match random.random_range(0..4) {
            0 => bytes.truncate(cut),
            1 => bytes[cut] ^= 1 << random.random_range(0..8),
            2 => bytes[cut..].fill(0),
            _ => {
                let end = random.random_range(cut..bytes.len());
                bytes.drain(cut..end);
            }
        }
        fs::write(file, bytes).expect("written");
        let (mut spool, recovered) = open(folder.path(), 80_000);
        let (events, lost_bytes) = check(&mut spool, &recovered, &written);
        let context = format!("seed {seed} case {case}: {recovered:?}");
        if is_last {
            // Only the end of the last file can be lost without a header that shows it.
            let read = recovered.seal.events;
            assert!(read <= total, "{context}");
            let is_counted = recovered.lost.iter().any(|loss| loss.bytes > 0);
            let boundary = read == 0
                || written
                    .iter()
                    .any(|batch| batch.first + batch.count == read + 1);
            assert!(read == total || is_counted || boundary, "{context}");
        } else {
            assert_eq!(recovered.seal.events, total, "{context}");
            let whole = events
                + recovered
                    .batches
                    .iter()
                    .filter(|e| matches!(e.location, RecordLocation::Disk { .. }))
                    .map(|e| e.count)
                    .sum::<u64>();
            let first = recovered.batches.front().map_or(1, |entry| entry.first);
            assert_eq!(whole, total + 1 - first, "{context}");
            let holes = recovered
                .batches
                .iter()
                .filter(|e| matches!(e.location, RecordLocation::Hole { .. }));
            let missing: u64 = holes
                .flat_map(|hole| {
                    written
                        .iter()
                        .filter(|batch| (hole.first..=hole.last()).contains(&batch.first))
                })
                .map(|batch| body_bytes(std::slice::from_ref(batch)))
                .sum();
            assert_eq!(lost_bytes, missing, "{context}");
        }
    }
}

#[test]
fn any_flipped_bit_or_cut_is_survived() {
    let random = &mut SmallRng::seed_from_u64(1);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, mut recovered) = open(folder.path(), 1 << 20);
    let mut written = Vec::new();
    for _ in 0..3 {
        let batch = random_batch(random, recovered.seal.events + 1);
        let before = recovered.seal;
        recovered.seal.add_lines(batch.count, &batch.body);
        spool
            .append(before, recovered.seal, &batch)
            .expect("written");
        written.push(batch);
    }
    drop(spool);
    let file = &directory::segments(folder.path()).expect("one")[0];
    let good = fs::read(file).expect("bytes");
    for at in 0..good.len() {
        for bytes in [good[..at].to_vec(), {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            flipped
        }] {
            fs::write(file, bytes).expect("written");
            let (mut spool, recovered) = open(folder.path(), 1 << 20);
            check(&mut spool, &recovered, &written);
        }
    }
}

#[test]
fn events_of_a_replaced_process_are_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let random = &mut SmallRng::seed_from_u64(2);
    let (mut old, recovered) = open(folder.path(), 1 << 20);
    let mut seal = recovered.seal;
    let mut append = |spool: &mut Spool, seal: &mut Seal| {
        let batch = random_batch(random, seal.events + 1);
        let before = *seal;
        seal.add_lines(batch.count, &batch.body);
        spool.append(before, *seal, &batch).expect("written");
        batch
    };
    let mut kept = vec![append(&mut old, &mut seal)];
    let (mut new, recovered) = open(folder.path(), 1 << 20);
    assert_eq!(recovered.seal, seal);
    assert_eq!(old.identity().0, new.identity().0);
    let mut zombie = seal;
    append(&mut old, &mut zombie);
    kept.push(append(&mut new, &mut seal));
    append(&mut old, &mut zombie);
    kept.push(append(&mut new, &mut seal));
    assert!(directory::is_in_use(folder.path()).expect("readable"));
    drop((old, new));
    assert!(!directory::is_in_use(folder.path()).expect("readable"));
    let (mut spool, recovered) = open(folder.path(), 1 << 20);
    assert_eq!(check(&mut spool, &recovered, &kept), (0, 0));
    assert_eq!(recovered.seal, seal);
}

#[test]
fn files_of_another_run_are_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&mut SmallRng::seed_from_u64(3), folder.path());
    let opened = Spool::open(folder.path(), Uuid::nil(), 3, 1 << 20, Fsync::Never);
    let (_spool, recovered) = opened.expect("a spool");
    assert!(recovered.batches.is_empty() && recovered.segments.is_empty());
}

#[test]
fn only_the_owner_can_read_the_spool() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let producer_folder = folder.path().join("of a run");
    let (mut spool, recovered) = open(&producer_folder, 80_000);
    let batch = random_batch(&mut SmallRng::seed_from_u64(1), 1);
    let mut seal = recovered.seal;
    seal.add_lines(batch.count, &batch.body);
    spool.append(recovered.seal, seal, &batch).expect("written");
    let mode = |path: &Path| {
        let metadata = fs::metadata(path).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&producer_folder), 0o700);
    let files: Vec<_> = fs::read_dir(&producer_folder).expect("a folder").collect();
    assert!(files.len() >= 2, "a lock and a segment");
    for file in files {
        assert_eq!(mode(&file.expect("a file").path()), 0o600);
    }
}

#[test]
fn an_emptied_oldest_file_is_a_counted_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let random = &mut SmallRng::seed_from_u64(2);
    while directory::segments(folder.path()).expect("segments").len() < 2 {
        write(random, folder.path());
    }
    let files = directory::segments(folder.path()).expect("segments");
    fs::write(&files[0], b"").expect("written");
    let (_, recovered) = open(folder.path(), 80_000);
    assert!(
        recovered
            .batches
            .front()
            .is_some_and(|oldest| oldest.first > 1)
    );
    assert!(!recovered.lost.is_empty(), "{recovered:?}");
}
