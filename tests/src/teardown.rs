//! The checks of a stack at the end of its story: no work is left, and services stop cleanly.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use runcast_common::protocol::keys::{Keys, PARTITION_COUNT};

use crate::process::Process;
use crate::redis_server::RedisServer;
use crate::service::Service;

/// Longest wait for the last events to be stored, and for services to stop.
const TEARDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// Log lines of one process that are printed when a story fails.
const PRINTED_LINES: usize = 200;

/// Longest part of a log line that is printed.
const PRINTED_LINE_BYTES: usize = 500;

/// Checks that no service has ended by itself, that no run waits to be stored, and that services
/// exit with code 0 on SIGTERM.
pub(crate) fn verify_clean_shutdown(
    services: &mut BTreeMap<Service, Process>,
    redis: &RedisServer,
    keys: &Keys,
) -> Result<(), String> {
    for (service, process) in &mut *services {
        if let Some(status) = process.try_wait() {
            return Err(format!("{} exited unexpectedly ({status})", service.name()));
        }
    }
    if services.contains_key(&Service::Persister) {
        wait_until("no run waits to be stored", || {
            ready_queue_is_empty(redis, keys)
        })?;
    }
    for process in services.values_mut() {
        process.signal(Signal::SIGTERM);
    }
    for (service, process) in services {
        let what = format!("{} exits on SIGTERM", service.name());
        wait_until(&what, || match process.try_wait() {
            Some(status) if status.success() => Ok(true),
            Some(status) => Err(format!("{} stopped with {status}", service.name())),
            None => Ok(false),
        })?;
    }
    Ok(())
}

fn ready_queue_is_empty(redis: &RedisServer, keys: &Keys) -> Result<bool, String> {
    let check = || {
        let client = redis::Client::open(redis.url(redis.port()))?;
        let mut connection = client.get_connection()?;
        let mut pipeline = redis::pipe();
        for partition in 0..PARTITION_COUNT {
            pipeline.cmd("XLEN").arg(keys.ready(partition));
        }
        let waiting: Vec<u64> = pipeline.query(&mut connection)?;
        Ok(waiting.iter().sum::<u64>() == 0)
    };
    check().map_err(|error: redis::RedisError| format!("Redis did not answer: {error}"))
}

fn wait_until(what: &str, mut check: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let start = Instant::now();
    while !check()? {
        if start.elapsed() > TEARDOWN_DEADLINE {
            return Err(format!("{what}: not within {TEARDOWN_DEADLINE:?}"));
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
            let end = line.floor_char_boundary(PRINTED_LINE_BYTES);
            eprintln!("{}", &line[..end]);
        }
    }
}
