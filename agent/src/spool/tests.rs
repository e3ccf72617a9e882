//! The format under damage: what is read back is a prefix, or counted gaps.

use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::chain::Entry;
use super::*;

const RUN: Uuid = Uuid::from_u128(7);

fn open(folder: &Path, cap: u64) -> (Spool, Chain) {
    Spool::open(folder, RUN, 3, cap, Fsync::Never).expect("a spool")
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
        let (mut spool, chain) = open(folder, 80_000);
        let mut seal = chain.seal;
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

/// Everything read is what was written; entries are dense; gives events and bytes that are missing.
fn check(spool: &mut Spool, chain: &Chain, written: &[Batch]) -> (u64, u64) {
    let start = chain.entries.front().map_or(1, |oldest| oldest.first);
    assert!(start == 1 || !chain.losses.is_empty(), "{chain:?}");
    let (mut next, mut events, mut bytes) = (start, 0, 0);
    for Entry {
        first,
        count,
        place,
    } in chain.entries.iter().copied()
    {
        assert_eq!(first, next, "dense");
        next += count;
        match place {
            Place::Disk { segment, at } => {
                let read = spool.read(segment, at).expect("readable");
                let one = written.iter().find(|batch| batch.first == first);
                assert_eq!(Some(&read), one);
            }
            Place::Hole { bytes: lost } => {
                events += count;
                bytes += lost;
            }
            Place::Memory => panic!("nothing is in memory"),
        }
    }
    assert!(chain.entries.is_empty() || chain.seal.events == next - 1);
    (events, bytes)
}

fn body_bytes(batches: &[Batch]) -> u64 {
    let of = |batch: &Batch| batch.body.len() as u64 - batch.count;
    batches.iter().map(of).sum()
}

#[test]
fn whatever_is_damaged_what_is_read_is_true_and_the_rest_is_counted() {
    let seed: u64 = rand::rng().next_u64();
    for case in 0..300 {
        let random = &mut SmallRng::seed_from_u64(seed.wrapping_add(case));
        let folder = tempfile::tempdir().expect("a folder");
        let written = write(random, folder.path());
        let total: u64 = written.iter().map(|batch| batch.count).sum();
        let files = folder::segments(folder.path()).expect("segments");
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
        let (mut spool, chain) = open(folder.path(), 80_000);
        let (events, lost_bytes) = check(&mut spool, &chain, &written);
        let context = format!("seed {seed} case {case}: {chain:?}");
        if is_last {
            // Only at its end something can be gone that no header tells of.
            let read = chain.seal.events;
            assert!(read <= total, "{context}");
            let told = chain.losses.iter().any(|loss| loss.bytes > 0);
            let boundary = read == 0
                || written
                    .iter()
                    .any(|batch| batch.first + batch.count == read + 1);
            assert!(read == total || told || boundary, "{context}");
        } else {
            assert_eq!(chain.seal.events, total, "{context}");
            let whole = events
                + chain
                    .entries
                    .iter()
                    .filter(|e| matches!(e.place, Place::Disk { .. }))
                    .map(|e| e.count)
                    .sum::<u64>();
            let first = chain.entries.front().map_or(1, |entry| entry.first);
            assert_eq!(whole, total + 1 - first, "{context}");
            let holes = chain
                .entries
                .iter()
                .filter(|e| matches!(e.place, Place::Hole { .. }));
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
fn every_bit_of_a_small_spool_matters_and_none_is_fatal() {
    let random = &mut SmallRng::seed_from_u64(1);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, mut chain) = open(folder.path(), 1 << 20);
    let mut written = Vec::new();
    for _ in 0..3 {
        let batch = random_batch(random, chain.seal.events + 1);
        let before = chain.seal;
        chain.seal.add_lines(batch.count, &batch.body);
        spool.append(before, chain.seal, &batch).expect("written");
        written.push(batch);
    }
    drop(spool);
    let file = &folder::segments(folder.path()).expect("one")[0];
    let good = fs::read(file).expect("bytes");
    for at in 0..good.len() {
        for bytes in [good[..at].to_vec(), {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            flipped
        }] {
            fs::write(file, bytes).expect("written");
            let (mut spool, chain) = open(folder.path(), 1 << 20);
            check(&mut spool, &chain, &written);
        }
    }
}

#[test]
fn what_a_replaced_process_writes_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let random = &mut SmallRng::seed_from_u64(2);
    let (mut old, chain) = open(folder.path(), 1 << 20);
    let mut seal = chain.seal;
    let mut append = |spool: &mut Spool, seal: &mut Seal| {
        let batch = random_batch(random, seal.events + 1);
        let before = *seal;
        seal.add_lines(batch.count, &batch.body);
        spool.append(before, *seal, &batch).expect("written");
        batch
    };
    let mut kept = vec![append(&mut old, &mut seal)];
    let (mut new, chain) = open(folder.path(), 1 << 20);
    assert_eq!(chain.seal, seal);
    assert_eq!(old.identity().0, new.identity().0);
    let mut zombie = seal;
    append(&mut old, &mut zombie);
    kept.push(append(&mut new, &mut seal));
    append(&mut old, &mut zombie);
    kept.push(append(&mut new, &mut seal));
    assert!(folder::is_in_use(folder.path()).expect("a look"));
    drop((old, new));
    assert!(!folder::is_in_use(folder.path()).expect("a look"));
    let (mut spool, chain) = open(folder.path(), 1 << 20);
    assert_eq!(check(&mut spool, &chain, &kept), (0, 0));
    assert_eq!(chain.seal, seal);
}

#[test]
fn another_runs_files_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&mut SmallRng::seed_from_u64(3), folder.path());
    let opened = Spool::open(folder.path(), Uuid::nil(), 3, 1 << 20, Fsync::Never);
    let (_spool, chain) = opened.expect("a spool");
    assert!(chain.entries.is_empty() && chain.segments.is_empty());
}

#[test]
fn nobody_else_may_read_what_a_run_printed() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("of a run");
    let (mut spool, chain) = open(&place, 80_000);
    let batch = random_batch(&mut SmallRng::seed_from_u64(1), 1);
    let mut seal = chain.seal;
    seal.add_lines(batch.count, &batch.body);
    spool.append(chain.seal, seal, &batch).expect("written");
    let mode = |path: &Path| {
        let metadata = fs::metadata(path).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&place), 0o700);
    let files: Vec<_> = fs::read_dir(&place).expect("a folder").collect();
    assert!(files.len() >= 2, "a lock and a segment");
    for file in files {
        assert_eq!(mode(&file.expect("a file").path()), 0o600);
    }
}

#[test]
fn an_oldest_file_that_was_emptied_is_a_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let random = &mut SmallRng::seed_from_u64(2);
    while folder::segments(folder.path()).expect("segments").len() < 2 {
        write(random, folder.path());
    }
    let files = folder::segments(folder.path()).expect("segments");
    fs::write(&files[0], b"").expect("written");
    let (_, chain) = open(folder.path(), 80_000);
    assert!(chain.entries.front().is_some_and(|oldest| oldest.first > 1));
    assert!(!chain.losses.is_empty(), "{chain:?}");
}
