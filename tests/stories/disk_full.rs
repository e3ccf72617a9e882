//! The disk of the spool is full. The command still runs, events without room on the disk stay in
//! memory, and those that are lost with the memory are counted.
//!
//! The disk is a small tmpfs in a mount namespace of the test's own, which needs no root and is
//! invisible to other processes. Its files are copied out before the namespace ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runcast_common::protocol::event::Kind;
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::database::{StoredEvent, text};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::{Process, ProcessSpec, shell_exit_code};
use runcast_tests::programs;
use runcast_tests::stack::Stack;
use serde_json::Value;
use uuid::Uuid;

use crate::viewer::{assert_text, numbers};

/// Size of the disk, and of what is published: several times as much.
const DISK_SIZE: &str = "1m";
const LINE_COUNT: u64 = 40_000;

/// Mounts the disk, runs the remaining arguments as a command, and copies the files out.
const SMALL_DISK_SCRIPT: &str = r#"
size=$1 disk=$2 kept=$3; shift 3
mount -t tmpfs -o "size=$size,mode=700" spool "$disk" || exit 99
"$@"
code=$?
df "$disk" >&2
cp -a "$disk/." "$kept/" || exit 98
exit $code
"#;

/// One run whose producer has a small disk, and a Redis that can be made unreachable.
struct SmallDiskStack {
    stack: Stack,
    chaos: Arc<ChaosProxy>,
    run: Uuid,
    retained: PathBuf,
}

impl SmallDiskStack {
    async fn start() -> Self {
        let mut stack = Stack::start().await;
        let chaos = stack.proxy_redis().await;
        let run = stack.api().create_run("disk full").await.id;
        let retained = stack.folder().join("kept");
        std::fs::create_dir(&retained).expect("a folder");
        Self {
            stack,
            chaos,
            run,
            retained,
        }
    }

    /// Wraps a command with its spool on the small disk.
    fn wrap(&self, drain: &str, script: &str) -> Process {
        let disk = self.stack.folder().join("disk");
        std::fs::create_dir(&disk).expect("a folder");
        let run = self.run.to_string();
        let runcast = programs::runcast();
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (disk, retained, runcast) = (path(&disk), path(&self.retained), path(&runcast));
        let namespaces = [
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            SMALL_DISK_SCRIPT,
            "sh",
        ];
        let folders = [DISK_SIZE, &disk, &retained];
        let wrap = [
            &runcast,
            "wrap",
            "--run",
            &run,
            "--spool",
            &disk,
            "--drain-timeout",
            drain,
        ];
        let command = ["--", "sh", "-c", script];
        let arguments = [&namespaces[..], &folders[..], &wrap[..], &command[..]].concat();
        ProcessSpec::new("wrap", "unshare", &arguments, self.stack.folder())
            .with_env(self.settings())
            .start(self.stack.folder())
    }

    fn settings(&self) -> [(&'static str, String); 4] {
        let redis = self.stack.redis.publisher_url(self.chaos.port());
        [
            ("RUNCAST_URL", self.stack.api().base().to_owned()),
            ("RUNCAST_TOKEN", self.stack.token().to_owned()),
            ("REDIS_URL", redis),
            ("RUNCAST_TRANSPORT", "redis".to_owned()),
        ]
    }

    async fn resend(&self) -> Process {
        let retained = self.retained.to_str().expect("UTF-8");
        let arguments = ["resend", retained, "--timeout", "20"];
        let mut resend =
            ProcessSpec::new("resend", programs::runcast(), &arguments, &self.retained)
                .with_env(self.settings())
                .start(self.stack.folder());
        resend.wait_exit(WAIT_DEADLINE).await;
        resend
    }
}

fn output_of(process: &Process) -> String {
    String::from_utf8_lossy(&process.stderr()).into_owned()
}

fn script(end: &str) -> String {
    format!(
        "seq -f 'a line of the run that is as long as lines are, number %.0f' {LINE_COUNT}; {end}"
    )
}

fn lines() -> String {
    numbers(
        "a line of the run that is as long as lines are, number",
        1..=LINE_COUNT,
    )
}

/// The counts of all gaps.
fn gap_counts(events: &[StoredEvent]) -> Vec<Value> {
    let gaps = events
        .iter()
        .filter(|event| event.kind == Kind::Gap.number());
    let line = |event: &StoredEvent| -> Value {
        serde_json::from_slice(&event.body).expect("a stored line is JSON")
    };
    gaps.map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_without_disk_space_wait_in_memory() {
    let world = SmallDiskStack::start().await;
    world.chaos.refuse();
    let go = world.stack.folder().join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done; exit 7", go.display());
    let mut wrap = world.wrap("30", &script(&wait));
    let whole = lines();
    eventually("the command has printed everything", async || {
        let output = wrap.stdout().len();
        let there = (output == whole.len()).then_some(());
        there.ok_or_else(|| format!("{output} of {} bytes\n{}", whole.len(), wrap.logs()))
    })
    .await;
    world.chaos.forward();
    std::fs::write(&go, "").expect("a file");
    let code = shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await);
    let output_of = output_of(&wrap);
    assert_eq!(code, 7, "{output_of}");
    assert!(
        output_of.contains("spool") && output_of.contains("No space left"),
        "{output_of}"
    );
    assert!(
        !output_of.contains("panicked") && !output_of.contains("lost"),
        "{output_of}"
    );
    let events = world.stack.database.wait_sealed(world.run).await;
    assert_text(&text(&events, Kind::Output), &whole);
    assert_eq!(gap_counts(&events), [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spooled_events_are_resent_and_the_rest_is_counted() {
    let world = SmallDiskStack::start().await;
    world.chaos.refuse();
    let mut wrap = world.wrap("1", &script("exit 7"));
    let code = shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await);
    let output = output_of(&wrap);
    assert_eq!(code, 7, "{output}");
    let whole = lines();
    assert_text(&wrap.stdout(), &whole);
    let retained = "events are not sent yet";
    assert!(
        output.contains("events are lost") && output.contains(retained),
        "{output}"
    );
    assert!(!output.contains("panicked"), "{output}");

    world.chaos.forward();
    let resend = world.resend().await;
    assert!(
        output_of(&resend).contains("all is stored"),
        "{}",
        resend.logs()
    );
    let events = world.stack.database.events(world.run).await;
    let stored = text(&events, Kind::Output);
    let count = stored.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!(
        (1000..LINE_COUNT).contains(&count),
        "{count} lines had room"
    );
    assert!(
        whole.as_bytes().starts_with(&stored),
        "a prefix of the output"
    );
    // The last status still had room, and the gap stands where the events are missing.
    let [gap] = &gap_counts(&events)[..] else {
        panic!("one gap, not {:?}", gap_counts(&events));
    };
    assert_eq!(
        (&gap["count"], &gap["reason"]),
        (&(LINE_COUNT - count).into(), &"unreadable".into())
    );
    let kinds: Vec<i16> = events.iter().map(|event| event.kind).collect();
    let (gap, status) = (Kind::Gap.number(), Kind::Status.number());
    assert_eq!(kinds[kinds.len() - 2..], [gap, status]);
    let run = world.stack.database.run(world.run).await;
    assert_eq!((run.status.as_str(), run.sealed), ("failed", false));
}
