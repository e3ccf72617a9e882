//! Shared by all benchmarks: CPU time and memory of a process as the kernel counts them, medians,
//! and the line format of results.
//!
//! CPU time is read in ticks of 10 ms: only differences over a second or more are meaningful.

#![allow(dead_code, reason = "each benchmark uses its own part")]

use std::fmt::Arguments;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use runcast_common::protocol::event::{self, Kind, Text};

/// Length of one event: its line with the newline.
pub(crate) const EVENT_BYTES: usize = 200;

/// Number of different texts: twice the events of a batch.
const TEXT_COUNT: u64 = 1024;

/// Length of one tick of `/proc/<id>/stat`.
const TICK_MS: u64 = 10;

/// Prints one line of a result.
pub(crate) fn say(line: Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").expect("stdout takes a line");
}

/// The CPU time of a process, in user and kernel mode.
pub(crate) fn cpu(process: u32) -> Duration {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // The name before it may contain anything, blanks included.
    let (_, rest) = text.rsplit_once(')').expect("a process has a name");
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    Duration::from_millis(ticks * TICK_MS)
}

/// A memory figure of this process, such as `VmRSS` or `VmHWM`, in MiB.
pub(crate) fn memory(name: &str) -> f64 {
    kib("/proc/self/status", &format!("{name}:")) / 1024.0
}

/// The value that this share of the values stays below.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = sorted
        .iter()
        .zip(1u32..)
        .find(|(_, rank)| f64::from(*rank) >= share * sorted.len() as f64);
    below.map_or(f64::NAN, |(value, _)| *value)
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The median, minimum and maximum, in one column of a table.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let (least, most) = (quantile(values, 0.0), quantile(values, 1.0));
    format!(
        "{:.digits$} ({least:.digits$} .. {most:.digits$})",
        median(values)
    )
}

/// Different texts of `output` events whose lines have [`EVENT_BYTES`]. Like log lines they share
/// words and differ in numbers, so that they are compressible, but not trivially.
pub(crate) fn texts() -> Vec<String> {
    let length = EVENT_BYTES - line(Kind::Output, "\n").len();
    let texts: Vec<String> = (0..TEXT_COUNT)
        .map(|number| {
            // Splitmix64: random enough that no two numbers share their digits.
            let mut mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let (took, item) = (mixed % 997, mixed % 999_983);
            let text = format!(
                "INFO worker-{:02} request {mixed:016x} GET /v1/items/{item} answered 200 in {took} ms, {} bytes sent, cache {}, trace {:016x}",
                number % 16, mixed % 65_521, if mixed.is_multiple_of(3) { "miss" } else { "hit" }, mixed.rotate_left(17),
            );
            format!("{text:.<length$.length$}\n")
        })
        .collect();
    assert!(
        texts
            .iter()
            .all(|text| line(Kind::Output, text).len() == EVENT_BYTES)
    );
    texts
}

/// The line of an event with this text, with its newline.
pub(crate) fn line(kind: Kind, text: &str) -> Vec<u8> {
    let mut line = Vec::new();
    let payload = Text {
        text: Some(text),
        ..Text::default()
    };
    event::write_line(&mut line, kind, 0, event::now_ms(), &payload).expect("a line");
    line
}

/// Proportional set size of a process in KiB; shared pages count in part.
pub(crate) fn pss_kib(process: u32) -> f64 {
    kib(&format!("/proc/{process}/smaps_rollup"), "Pss:")
}

/// Resident set size of a process in KiB.
pub(crate) fn rss_kib(process: u32) -> f64 {
    kib(&format!("/proc/{process}/status"), "VmRSS:")
}

/// A process and all its descendants.
pub(crate) fn with_children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let children = children.split_whitespace().filter_map(|id| id.parse().ok());
    std::iter::once(process)
        .chain(children.flat_map(with_children))
        .collect()
}

fn kib(path: &str, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {path}"))
}
