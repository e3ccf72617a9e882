//! The fan-out: one gateway of Runcast beside nchan, a Durable Streams server, and what everybody writes first, all in one
//! run, over loopback, with a load client that shares the cores with all of them.
//!
//! - **idle**: memory of a server for each viewer that has seen one message and then nothing.
//! - **latency**: from when a message was due until each of many viewers of one channel has it.
//! - **throughput**: the highest rate that is kept for some seconds while nobody falls behind.
//! - **runs**: as latency, over many channels with few viewers each.
//! - **overload**: more than any server can deliver: its memory, who is closed, and whether all find everything.
//! - **storm**: everybody comes back at once, with old cursors, to a gateway that has just started.
//! - **burst**: everybody comes at once.
//! - **depth**: how long a viewer waits for its first event, by how far back it resumes.
//!
//! All sides publish and deliver the same lines of [`MESSAGE_BYTES`](runcast_tests::mark::MESSAGE_BYTES). Every viewer checks
//! in every part that no message is missing, doubled or out of order; a round where one is counts as failed, and says so.
//! With `--quick` everything is small: it shows that the benchmark works, and its figures mean nothing.

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

const PARTS: [&str; 8] = [
    "idle",
    "latency",
    "throughput",
    "runs",
    "overload",
    "storm",
    "burst",
    "depth",
];

/// Longest wait for a crowd to come, or to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files that a process needs beside its viewers.
const OTHER_FILES: u64 = 500;

/// How large everything is.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Viewers in `idle` and `burst`.
    many: usize,
    /// Viewers of one channel in `latency`, `throughput` and `overload`.
    viewers: usize,
    /// Viewers in `storm`.
    returning: usize,
    rounds: usize,
    /// How long something is published at one pace.
    time: Duration,
    /// How long `overload` goes on.
    overload: Duration,
    /// Events of the run in `depth`.
    events: usize,
}

const FULL: Scale = Scale {
    many: 10_000,
    viewers: 1_000,
    returning: 5_000,
    rounds: 3,
    time: Duration::from_secs(3),
    overload: Duration::from_secs(12),
    events: 1_000_000,
};

const QUICK: Scale = Scale {
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
        && first == naive::ARGUMENT
    {
        let port = port.parse().expect("a port");
        return runtime().block_on(naive::serve(port));
    }
    let quick = arguments.iter().any(|one| one == "--quick");
    let scale = if quick { QUICK } else { FULL };
    let parts = arguments.iter().filter(|one| !one.starts_with("--"));
    let mut parts: Vec<&str> = parts.map(String::as_str).collect();
    if parts.is_empty() {
        parts = PARTS.to_vec();
    }
    raise_limit(scale.many as u64 + OTHER_FILES);
    for part in parts {
        assert!(PARTS.contains(&part), "no part {part}: there are {PARTS:?}");
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

/// Lets viewers come to all channels of a side that nobody has published to, and waits until each has seen one message.
fn gather(side: &mut Side, viewers: usize, every_duration: bool) -> Result<Crowd, String> {
    let crowd = Crowd::start(CrowdPlan {
        viewers,
        address: side.address,
        request: side.request(),
        first: Box::new(|_| 1),
        reconnects: false,
        max_connecting: 256,
        record_all: every_duration,
    });
    crowd.wait_all_open(PATIENCE)?;
    side.publisher.burst(side.publisher.channels());
    crowd.wait_all_received(1, PATIENCE)?;
    Ok(crowd)
}

/// Says what is wrong with what a crowd has seen, if something is.
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
