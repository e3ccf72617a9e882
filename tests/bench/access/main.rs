//! Access: the cost of authentication, authorization and rate limits, compared with requests
//! without them.
//!
//! - **validate**: a session, a token and a user's rights, from their cache in Redis and from
//!   Postgres, one after the other on one connection each, taking turns; then whole requests at a
//!   gateway with a cache, and at one without.
//! - **limits**: the rate limit script, compared with `PING` on the same connection.
//! - **mix**: the cache hit rate of the requests that [`mix`] describes.
//! - **requests**: requests/s of a cheap route with a thousand clients, with a token and without.
//! - **redis-users**: the time to create the Redis user of an agent, and the memory of 10,000.
//!
//! All traffic is over loopback, and the load shares the cores with the servers. With `--quick`
//! everything is small: that shows that the benchmark works, but its figures mean nothing.

mod clients;
mod limits;
#[path = "../measure.rs"]
mod measure;
mod mix;
mod redis_users;
mod requests;
mod users;
mod validate;

use std::time::{Duration, Instant};

use runcast_tests::open_files::raise_limit;

use self::measure::quantile;

const PART_NAMES: [&str; 5] = ["validate", "limits", "mix", "requests", "redis-users"];

/// Files that a process needs beside its clients.
const OTHER_FILES: u64 = 500;

/// The sizes of all parts.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Calls of each kind in a round.
    calls: usize,
    rounds: usize,
    /// Users, and as many tokens, in `mix`.
    users: usize,
    /// Requests in `mix`.
    requested: usize,
    /// Clients in `requests`.
    clients: usize,
    /// Length of each run of them.
    time: Duration,
    /// Users in `redis-users`.
    redis_users: usize,
}

const FULL_SCALE: Scale = Scale {
    calls: 2_000,
    rounds: 5,
    users: 1_000,
    requested: 60_000,
    clients: 1_000,
    time: Duration::from_secs(5),
    redis_users: 10_000,
};

const QUICK_SCALE: Scale = Scale {
    calls: 100,
    rounds: 2,
    users: 100,
    requested: 3_000,
    clients: 100,
    time: Duration::from_secs(1),
    redis_users: 500,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|one| one == "--quick");
    let scale = if quick { QUICK_SCALE } else { FULL_SCALE };
    let parts = arguments.iter().filter(|one| !one.starts_with("--"));
    let mut parts: Vec<&str> = parts.map(String::as_str).collect();
    if parts.is_empty() {
        parts = PART_NAMES.to_vec();
    }
    raise_limit(scale.clients as u64 + OTHER_FILES);
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = built.expect("a runtime");
    for part in parts {
        match part {
            "validate" => runtime.block_on(validate::validate(scale)),
            "limits" => runtime.block_on(limits::limits(scale)),
            "mix" => runtime.block_on(mix::mix(scale)),
            "requests" => runtime.block_on(requests::requests(scale)),
            "redis-users" => runtime.block_on(redis_users::redis_users(scale)),
            _ => panic!("no part {part}: there are {PART_NAMES:?}"),
        }
    }
}

/// The time of each of these calls, in microseconds.
async fn timed(calls: usize, mut call: impl AsyncFnMut()) -> Vec<f64> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = Instant::now();
        call().await;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times
}

/// Columns of a table: p50 and p99, and p50 relative to another side.
fn columns(times: &[f64], beside: &[f64]) -> String {
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(times, share));
    let ratio = p50 / quantile(beside, 0.5);
    format!("{p50:.0} | {p99:.0} | {ratio:.2}")
}
