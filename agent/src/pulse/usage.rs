//! Memory and processor time of a process and all its descendants, from `/proc` (Linux; elsewhere nothing
//! is known).
//!
//! Times count what ended children have used as well, as far as somebody waited for them, so a command that
//! starts one short process after the other shows what it costs. Bound: [`MAX_PROCESSES`].

use std::fs;
use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};

/// Processes that are looked at, at most: a runaway that forks must not keep this thread busy.
const MAX_PROCESSES: usize = 1024;

/// What processes use at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Used {
    /// Resident bytes; pages that processes share count for each of them.
    pub(super) rss: u64,
    /// Processors in use since the reading before; none at the first.
    pub(super) cpu: Option<f64>,
}

/// Reads what one process and its descendants use, again and again.
#[derive(Debug)]
pub(super) struct Usage {
    root: u32,
    page_bytes: u64,
    ticks_per_second: u64,
    before: Option<(Instant, u64)>,
}

/// What one process uses.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    ticks: u64,
    pages: u64,
}

impl Usage {
    pub(super) fn new(root: u32) -> Self {
        Self {
            root,
            page_bytes: setting(SysconfVar::PAGE_SIZE, 4096),
            ticks_per_second: setting(SysconfVar::CLK_TCK, 100),
            before: None,
        }
    }

    /// What is used now; none where that cannot be known.
    pub(super) fn read(&mut self) -> Option<Used> {
        let (mut ticks, mut pages, mut seen) = (0, 0, 0);
        let mut waiting = vec![self.root];
        while let Some(id) = waiting.pop() {
            seen += 1;
            if seen > MAX_PROCESSES {
                break;
            }
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok();
            // It may have ended between the look at its parent and this one.
            let Some(process) = stat.as_deref().and_then(parse) else {
                continue;
            };
            ticks += process.ticks;
            pages += process.pages;
            waiting.extend(children(id));
        }
        let now = Instant::now();
        let before = self.before.replace((now, ticks));
        let cpu = before.and_then(|(at, before)| {
            let seconds = now.duration_since(at).as_secs_f64();
            // Less than before: a process has ended that nobody waited for.
            let used = ticks.saturating_sub(before) as f64 / self.ticks_per_second as f64;
            (seconds > 0.0).then(|| (used / seconds * 1000.0).round() / 1000.0)
        });
        (pages > 0).then_some(Used {
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

/// Reads `/proc/<id>/stat`, as proc(5) has it.
fn parse(stat: &str) -> Option<Process> {
    // The name in parentheses may hold anything, parentheses and blanks included. Behind it stands field 3.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let times = [14, 15, 16, 17].map(field);
    Some(Process {
        ticks: times.into_iter().sum::<Option<u64>>()?,
        pages: field(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 10 20 3 4 20 0 1 0 100 1000 250 18446744073709551615";
        let expected = Process {
            ticks: 37,
            pages: 250,
        };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse("7 (a) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn descendants_count() {
        let mut usage = Usage::new(std::process::id());
        let alone = usage.read().expect("this process");
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
        std::io::Read::read_exact(&mut out, &mut ready).expect("it says so");
        let with = usage.read().expect("both");
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!(with.rss > alone.rss + 15_000_000, "{alone:?} {with:?}");
        assert!(with.cpu.is_some_and(|cpu| cpu >= 0.0));
    }
}
