//! Memory and processor time of a process and all its descendants, from `/proc` (on Linux;
//! elsewhere they are unknown).
//!
//! Processor time includes ended children that their parent has waited for, so a command that
//! starts one short process after the other shows what it costs. Bound: [`MAX_PROCESSES`].

use std::fs;
use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};

/// Processes that are read: a runaway that forks must not keep this thread busy.
const MAX_PROCESSES: usize = 1024;

/// What the processes use at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ResourceUsage {
    /// Resident bytes; shared pages count for each process.
    pub(super) rss: u64,
    /// Processors in use since the previous sample; none for the first.
    pub(super) cpu: Option<f64>,
}

/// Samples what a process and its descendants use.
#[derive(Debug)]
pub(super) struct UsageSampler {
    root: u32,
    page_bytes: u64,
    ticks_per_second: u64,
    /// Time and ticks of the previous sample.
    previous: Option<(Instant, u64)>,
}

/// What one process uses.
#[derive(Debug, PartialEq, Eq)]
struct ProcessStat {
    ticks: u64,
    pages: u64,
}

impl UsageSampler {
    pub(super) fn new(root: u32) -> Self {
        Self {
            root,
            page_bytes: setting(SysconfVar::PAGE_SIZE, 4096),
            ticks_per_second: setting(SysconfVar::CLK_TCK, 100),
            previous: None,
        }
    }

    /// What is used now; none if it is unknown.
    pub(super) fn sample(&mut self) -> Option<ResourceUsage> {
        let (mut ticks, mut pages, mut processes) = (0, 0, 0);
        let mut pending = vec![self.root];
        while let Some(id) = pending.pop() {
            processes += 1;
            if processes > MAX_PROCESSES {
                break;
            }
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok();
            // It may have ended since its parent was read.
            let Some(process) = stat.as_deref().and_then(parse) else {
                continue;
            };
            ticks += process.ticks;
            pages += process.pages;
            pending.extend(children(id));
        }
        let now = Instant::now();
        let previous = self.previous.replace((now, ticks));
        let cpu = previous.and_then(|(at, previous_ticks)| {
            let seconds = now.duration_since(at).as_secs_f64();
            // Less than before: a process has ended that its parent did not wait for.
            let used = ticks.saturating_sub(previous_ticks) as f64 / self.ticks_per_second as f64;
            (seconds > 0.0).then(|| (used / seconds * 1000.0).round() / 1000.0)
        });
        (pages > 0).then_some(ResourceUsage {
            rss: pages * self.page_bytes,
            cpu,
        })
    }
}

fn setting(name: SysconfVar, otherwise: u64) -> u64 {
    let value = sysconf(name).ok().flatten();
    value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value > 0)
        .unwrap_or(otherwise)
}

/// The children of all threads of a process.
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let ids = list.split_ascii_whitespace();
            ids.filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// Parses `/proc/<id>/stat`, see proc(5).
fn parse(stat: &str) -> Option<ProcessStat> {
    // The name in parentheses may contain anything, also parentheses and blanks. Field 3 follows
    // it.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let times = [14, 15, 16, 17].map(field);
    Some(ProcessStat {
        ticks: times.into_iter().sum::<Option<u64>>()?,
        pages: field(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_contain_anything() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 10 20 3 4 20 0 1 0 100 1000 250 18446744073709551615";
        let expected = ProcessStat {
            ticks: 37,
            pages: 250,
        };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse("7 (a) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn usage_includes_descendants() {
        let mut usage = UsageSampler::new(std::process::id());
        let alone = usage.sample().expect("this process");
        assert_eq!(alone.cpu, None);
        // A grandchild that holds memory until its input ends.
        let script =
            "sh -c 'x=$(head -c 20000000 /dev/zero | tr \"\\0\" x); echo ready; read y' & wait";
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                &format!("exec 3<&0; {script}").replace("read y", "read y <&3"),
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut ready = [0; 6];
        let mut out = child.stdout.take().expect("a pipe");
        std::io::Read::read_exact(&mut out, &mut ready).expect("it is ready");
        let with = usage.sample().expect("both");
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!(with.rss > alone.rss + 15_000_000, "{alone:?} {with:?}");
        assert!(with.cpu.is_some_and(|cpu| cpu >= 0.0));
    }
}
