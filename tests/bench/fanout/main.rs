//! The fan-out: one gateway of Runcast, compared with nchan, a Durable Streams server, and the
//! usual first implementation, all in one run, over loopback, with a load client that shares the
//! cores with all of them.
//!
//! - **idle**: memory of a server per viewer that has received one message and then nothing.
//! - **latency**: from when a message was due until each of many viewers of one channel has it.
//! - **throughput**: the highest rate that is sustained for some seconds without a viewer falling
//!   behind.
//! - **runs**: latency over many channels with few viewers each.
//! - **overload**: more than any server can deliver: its memory, which viewers it closes, and
//!   whether all receive everything.
//! - **storm**: all viewers reconnect at once, with old cursors, to a gateway that has just
//!   started.
//! - **burst**: all viewers connect at once.
//! - **depth**: how long a viewer waits for its first event, by how far back it resumes.
//!
//! All sides publish and deliver the same lines of
//! [`MESSAGE_BYTES`](runcast_tests::stamp::MESSAGE_BYTES). In all parts each viewer checks that no
//! message is missing, doubled or out of order; a round with such an error counts as failed, and
//! says so. With `--quick` everything is small: that shows that the benchmark works, but its
//! figures mean nothing.

mod depth;
mod idle;
#[path = "../measure.rs"]
mod measure;
mod naive;
mod overload;
mod paced;
mod publish;
mod side;
mod storm;
mod throughput;

use std::time::Duration;

use runcast_tests::crowd::{Crowd, CrowdPlan};
use runcast_tests::open_files::raise_limit;

use self::side::Side;

const PART_NAMES: [&str; 8] = [
    "idle",
    "latency",
    "throughput",
    "runs",
    "overload",
    "storm",
    "burst",
    "depth",
];

/// Longest wait for a crowd to connect, or to catch up.
const CROWD_DEADLINE: Duration = Duration::from_secs(60);

/// Files that a process needs beside its viewers.
const OTHER_FILES: u64 = 500;

/// The sizes of all parts.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Viewers in `idle` and `burst`.
    many: usize,
    /// Viewers of one channel in `latency`, `throughput` and `overload`.
    viewers: usize,
    /// Viewers in `storm`.
    returning: usize,
    rounds: usize,
    /// How long each pace is published.
    time: Duration,
    /// Length of `overload`.
    overload: Duration,
    /// Events of the run in `depth`.
    events: usize,
}

const FULL_SCALE: Scale = Scale {
    many: 10_000,
    viewers: 1_000,
    returning: 5_000,
    rounds: 3,
    time: Duration::from_secs(3),
    overload: Duration::from_secs(12),
    events: 1_000_000,
};

const QUICK_SCALE: Scale = Scale {
    many: 500,
    viewers: 100,
    returning: 200,
    rounds: 1,
    time: Duration::from_secs(1),
    overload: Duration::from_secs(2),
    events: 20_000,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, port] = &arguments[..]
        && first == naive::NAIVE_ARGUMENT
    {
        let port = port.parse().expect("a port");
        return runtime().block_on(naive::serve(port));
    }
    let quick = arguments.iter().any(|one| one == "--quick");
    let scale = if quick { QUICK_SCALE } else { FULL_SCALE };
    let parts = arguments.iter().filter(|one| !one.starts_with("--"));
    let mut parts: Vec<&str> = parts.map(String::as_str).collect();
    if parts.is_empty() {
        parts = PART_NAMES.to_vec();
    }
    raise_limit(scale.many as u64 + OTHER_FILES);
    for part in parts {
        assert!(
            PART_NAMES.contains(&part),
            "no part {part}: there are {PART_NAMES:?}"
        );
        runtime().block_on(play(part, scale));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    built.expect("a runtime")
}

async fn play(part: &str, scale: Scale) {
    match part {
        "idle" => idle::idle(scale).await,
        "latency" => paced::latency(scale).await,
        "throughput" => throughput::throughput(scale).await,
        "runs" => paced::runs(scale).await,
        "overload" => overload::overload(scale).await,
        "storm" => storm::storm(scale).await,
        "burst" => idle::burst(scale).await,
        _ => depth::depth(scale).await,
    }
}

/// Connects viewers to all channels of a side without publications, and waits until each has
/// received one message.
fn connect_crowd(side: &mut Side, viewers: usize, every_duration: bool) -> Result<Crowd, String> {
    let crowd = Crowd::start(CrowdPlan {
        viewers,
        address: side.address,
        request: side.request(),
        first: Box::new(|_| 1),
        reconnects: false,
        max_connecting: 256,
        record_all: every_duration,
    });
    crowd.wait_all_open(CROWD_DEADLINE)?;
    side.publisher.burst(side.publisher.channels());
    crowd.wait_all_received(1, CROWD_DEADLINE)?;
    Ok(crowd)
}

/// Describes the errors of a crowd, if any.
fn whole(crowd: &Crowd, viewers: usize) -> Result<(), String> {
    let sums = crowd.counts();
    if sums.sequence_errors == 0 && sums.gaps == 0 && sums.open == viewers as u64 {
        return Ok(());
    }
    Err(format!(
        "{sums:?}, {}",
        crowd.first_error().unwrap_or_default()
    ))
}
