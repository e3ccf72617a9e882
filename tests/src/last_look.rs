//! What a stack checks when its story is over: that nothing is left undone.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use runcast_common::protocol::keys::{Keys, PARTITIONS};

use crate::part::Part;
use crate::process::Process;
use crate::redis_server::RedisServer;

/// Longest wait for the last events to be stored, and for services to stop.
const DEADLINE: Duration = Duration::from_secs(20);

/// Log lines of one process that are printed when a story fails.
const PRINTED_LINES: usize = 200;

/// Bytes of a log line that are printed.
const PRINTED_BYTES: usize = 500;

/// Checks that no service has ended by itself, that no run waits to be stored, and that services stop
/// when asked, with exit code 0.
pub(crate) fn judge(
    parts: &mut BTreeMap<Part, Process>,
    redis: &RedisServer,
    keys: &Keys,
) -> Result<(), String> {
    for (part, process) in &mut *parts {
        if let Some(status) = process.exited() {
            return Err(format!("{} ended by itself ({status})", part.name()));
        }
    }
    if parts.contains_key(&Part::Persister) {
        wait_until("no run waits to be stored", || nothing_waits(redis, keys))?;
    }
    for process in parts.values_mut() {
        process.signal(Signal::SIGTERM);
    }
    for (part, process) in parts {
        let what = format!("{} stops when asked", part.name());
        wait_until(&what, || match process.exited() {
            Some(status) if status.success() => Ok(true),
            Some(status) => Err(format!("{} stopped with {status}", part.name())),
            None => Ok(false),
        })?;
    }
    Ok(())
}

fn nothing_waits(redis: &RedisServer, keys: &Keys) -> Result<bool, String> {
    let look = || {
        let client = redis::Client::open(redis.url(redis.port()))?;
        let mut connection = client.get_connection()?;
        let mut pipeline = redis::pipe();
        for partition in 0..PARTITIONS {
            pipeline.cmd("XLEN").arg(keys.ready(partition));
        }
        let waiting: Vec<u64> = pipeline.query(&mut connection)?;
        Ok(waiting.iter().sum::<u64>() == 0)
    };
    look().map_err(|error: redis::RedisError| format!("Redis did not answer: {error}"))
}

fn wait_until(what: &str, mut look: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let start = Instant::now();
    while !look()? {
        if start.elapsed() > DEADLINE {
            return Err(format!("{what}: not within {DEADLINE:?}"));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Prints the end of every log in the folder.
#[expect(
    clippy::print_stderr,
    reason = "a failed test explains itself on stderr"
)]
pub(crate) fn print_logs(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    for path in files {
        let is_log = path
            .extension()
            .is_some_and(|end| end == "out" || end == "err");
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        if !is_log || bytes.is_empty() {
            continue;
        }
        let text = String::from_utf8_lossy(&bytes);
        let skip = text.lines().count().saturating_sub(PRINTED_LINES);
        eprintln!("---- {} ({skip} lines left out)", path.display());
        for line in text.lines().skip(skip) {
            let end = line.floor_char_boundary(PRINTED_BYTES);
            eprintln!("{}", &line[..end]);
        }
    }
}
