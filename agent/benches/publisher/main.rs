//! What a [`Publisher`](runcast_publisher::Publisher) costs and how fast it is, against a Redis
//! server of its own on the loopback address.
//!
//! - `throughput`: events/s and processor time per event, compared with the raw pipelined append
//!   script;
//! - `latency`: from publishing to the acknowledgement of Redis at 100 events/s, compared with one
//!   raw call;
//! - `memory`, `memory-spool`: resident memory while Redis is stopped and everything is full;
//! - `transport`: events/s and latency through a gateway, compared with the direct way.
//!
//! Without an argument all parts run one after the other, each in a process of its own, so that
//! they share neither memory nor threads.

mod latency;
#[path = "../../../tests/bench/measure.rs"]
mod measure;
mod memory;
mod server;
mod throughput;
mod transport;

use std::process::{Command, ExitCode};

const PARTS: [&str; 5] = [
    "throughput",
    "latency",
    "memory",
    "memory-spool",
    "transport",
];

fn main() -> ExitCode {
    // Skip arguments that cargo adds.
    let arguments = std::env::args()
        .skip(1)
        .filter(|one| !one.starts_with("--"));
    let parts: Vec<String> = arguments.collect();
    match &parts[..] {
        [] => all(&PARTS),
        [part] => run(part),
        parts => all(parts),
    }
}

fn all(parts: &[impl AsRef<str>]) -> ExitCode {
    let program = std::env::current_exe().expect("the path of this program");
    for part in parts {
        let ended = Command::new(&program).arg(part.as_ref()).status();
        if !ended.expect("this program can be started").success() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(part: &str) -> ExitCode {
    runcast_common::connect::install_tls_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match part {
        "throughput" => runtime.block_on(throughput::run()),
        "latency" => runtime.block_on(latency::run()),
        "memory" => runtime.block_on(memory::run(false)),
        "memory-spool" => runtime.block_on(memory::run(true)),
        "transport" => runtime.block_on(transport::run()),
        _ => {
            let parts = PARTS.join(", ");
            measure::say(format_args!("there is no part {part}, only {parts}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
