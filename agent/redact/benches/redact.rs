//! Throughput of redaction: `tests/bench/run redact`.
//!
//! Redacts output of real tools (`tests/corpus/redaction/outputs`) in pieces of 64 KiB, with few
//! and with many secrets, and prints the median of [`TOTAL_ROUNDS`] rounds. Also prints how long it
//! takes to learn the secrets.

#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use runcast_redact::Redactor;

const TEXT_BYTES: usize = 32 * 1024 * 1024;
const PIECE_BYTES: usize = 64 * 1024;
const TOTAL_ROUNDS: usize = 5;

/// Kinds of output, and the files of each.
const TEXTS: [(&str, &[&str]); 3] = [
    ("plain", &["service-log", "make", "cargo"]),
    ("coloured", &["git-log", "ls", "grep"]),
    ("JSON", &["json-log"]),
];

fn text(files: &[&str]) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join("../../tests/corpus/redaction/outputs");
    let read = |file: &&str| fs::read(folder.join(file).with_extension("txt")).expect("the corpus");
    let once: Vec<u8> = files.iter().flat_map(read).collect();
    once.iter().copied().cycle().take(TEXT_BYTES).collect()
}

fn secrets(count: usize) -> Vec<Vec<u8>> {
    let secret = |number: usize| {
        let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("s3cR{number}t-{mixed:016x}/x+").into_bytes()
    };
    (0..count).map(secret).collect()
}

fn time(redactor: &Redactor, text: &[u8]) -> Duration {
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    let now = tokio::time::Instant::now();
    let started = Instant::now();
    for piece in text.chunks(PIECE_BYTES) {
        out.clear();
        stream.push(piece, now, &mut out);
        black_box(&out);
    }
    started.elapsed()
}

fn main() {
    println!("| secrets | learned in | plain | coloured | JSON |");
    println!("|---|---|---|---|---|");
    let texts = TEXTS.map(|(_, files)| text(files));
    for count in [0, 20, 400] {
        let secrets = secrets(count);
        let started = Instant::now();
        let redactor = Redactor::new();
        let rejected = redactor.add_all(secrets.iter().map(Vec::as_slice));
        assert!(rejected.is_empty(), "{rejected:?}");
        let learned = started.elapsed();
        let rates = texts.each_ref().map(|text| {
            let mut rounds = [(); TOTAL_ROUNDS].map(|()| time(&redactor, text));
            rounds.sort_unstable();
            let seconds = rounds[TOTAL_ROUNDS / 2].as_secs_f64();
            format!("{:.0} MB/s", text.len() as f64 / 1e6 / seconds)
        });
        println!(
            "| {count} | {:.0} ms | {} |",
            learned.as_secs_f64() * 1e3,
            rates.join(" | ")
        );
    }
}
