//! `runcast wrap --spool` and `runcast resend`: killed processes, and unreachable gateways.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::StatusChange;
use runcast_common::protocol::seal::Seal;
use runcast_common::redis;
use runcast_publisher::Target;
use support::gateway::{Gateway, json};
use support::{PATIENCE, Run, Server, eventually};
use tokio::time::{Instant, sleep};

fn runcast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
    for setting in [
        "RUNCAST_URL",
        "RUNCAST_TOKEN",
        "REDIS_URL",
        "RUNCAST_LOG",
        "RUNCAST_SPOOL",
    ] {
        command.env_remove(setting);
    }
    // A gateway that `runcastd dev` runs in this repository must not be found.
    command.env("RUNCAST_DATA_DIR", "/nowhere");
    command
}

fn reached(gateway: &Gateway, server: &Server) -> Command {
    let mut command = runcast();
    command
        .env("RUNCAST_URL", &gateway.url)
        .env("RUNCAST_TOKEN", "very-secret")
        .env("REDIS_URL", server.url());
    command
}

fn reply(target: &Target) -> String {
    let body = serde_json::json!({
        "run": {"id": target.run}, "url": "http://page/#/runs/1",
        "redis": {"url": "redis://127.0.0.1:1", "prefix": target.prefix},
    });
    json("200 OK", &body.to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn output(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output().expect("runs"));
    run.await.expect("ends")
}

fn folders(spool: &Path) -> usize {
    std::fs::read_dir(spool).expect("a folder").count()
}

/// What each process wrote, by its number: in order from 1, nothing twice. Gaps only count what a
/// kill cut off while it was being written.
fn check(events: &[Event], seed: u64) -> BTreeMap<u64, u64> {
    let mut written: BTreeMap<u64, u64> = BTreeMap::new();
    let mut gaps = 0;
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.producer_seq, index as u64 + 1, "seed {seed}");
        assert_eq!(event.producer, events[0].producer, "seed {seed}");
        let line: serde_json::Value = serde_json::from_slice(&event.line).expect("JSON");
        if line["kind"] == "gap" {
            gaps += 1;
            continue;
        }
        let Some(text) = line["text"].as_str() else {
            continue;
        };
        let (process, number) = text.trim_end().split_once(' ').expect("two numbers");
        let last = written
            .entry(process.parse().expect("a number"))
            .or_default();
        *last += 1;
        assert_eq!(number, last.to_string(), "process {process} of seed {seed}");
    }
    assert!(gaps <= 50, "{gaps} gaps, seed {seed}");
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_at_random_moments_lose_and_repeat_nothing_that_was_spooled() {
    const KILLS: u64 = 50;
    let seed: u64 = rand::random();
    let random = &mut SmallRng::seed_from_u64(seed);
    let spool = tempfile::tempdir().expect("a folder");
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let gateway = Gateway::answering((0..=KILLS).map(|_| reply(&target)).collect());
    let wrap = |script: &str| {
        let mut command = reached(&gateway, &server);
        command.args(["wrap", "--run", &target.run.to_string(), "--spool"]);
        command.arg(spool.path()).args(["--", "sh", "-c", script]);
        command
    };
    let mut stored = Vec::new();
    for process in 0..KILLS {
        let script = format!("i=0; while :; do i=$((i+1)); echo {process} $i; done");
        let mut child = wrap(&script)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs");
        eventually("it has joined", async || {
            gateway.asked().len() as u64 > process
        })
        .await;
        sleep(Duration::from_micros(random.random_range(0..120_000))).await;
        match random.random_range(0..3) {
            // Events that are published now are only in the spool.
            0 => {
                let pause = redis::cmd("CLIENT").arg("PAUSE").arg(150).to_owned();
                run.redis
                    .query::<()>(run.keys.slot, &pause)
                    .await
                    .expect("paused");
                sleep(Duration::from_micros(random.random_range(0..60_000))).await;
            }
            1 => stored.extend(run.settle().await),
            _ => {}
        }
        child.kill().expect("killed");
        child.wait().expect("ends");
    }
    let last = wrap("i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo 50 $i; done");
    let last = tokio::spawn(output(last));
    let deadline = Instant::now() + 3 * PATIENCE;
    while !last.is_finished() {
        assert!(Instant::now() < deadline, "seed {seed}");
        stored.extend(run.settle().await);
        sleep(Duration::from_millis(10)).await;
    }
    stored.extend(run.settle().await);
    let last = last.await.expect("ends");
    assert!(last.status.success(), "{}", text(&last.stderr));

    let written = check(&stored, seed);
    assert_eq!(written.get(&50), Some(&1000), "seed {seed}");
    assert!(written.len() > 25, "{written:?}, seed {seed}");
    // All processes together continued one seal, and it matches the stored events.
    let (end, before) = stored.split_last().expect("events");
    let status: StatusChange = serde_json::from_slice(&end.line).expect("a status");
    let mut seal = Seal::default();
    before.iter().for_each(|event| seal.add(&event.line));
    assert_eq!(status.seal, Some(seal), "seed {seed}");
    assert_eq!(
        folders(spool.path()),
        0,
        "stored and sealed: the files are gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_the_output_is_spooled_and_resent_as_one_run() {
    let spool = tempfile::tempdir().expect("a folder");
    let mut command = runcast();
    command.args([
        "wrap",
        "--name",
        "nightly",
        "--label",
        "team=search",
        "--variation",
        "1",
        "--spool",
    ]);
    command.arg(spool.path());
    command.args(["--", "sh", "-c", "echo kept; echo trouble >&2; exit 4"]);
    let began = Instant::now();
    let ran = output(command).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "there is nothing to wait for"
    );
    assert_eq!(
        (ran.status.code(), ran.stdout),
        (Some(4), b"kept\n".to_vec())
    );
    let stderr = text(&ran.stderr);
    let hint = format!("send them with `runcast resend {}`", spool.path().display());
    assert!(
        stderr.contains("RUNCAST_URL") && stderr.contains(&hint),
        "{stderr}"
    );
    let key = spooled_run(spool.path());

    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let gateway = Gateway::answering(vec![reply(&target), reply(&target)]);
    let resend = |seconds: &str| {
        let mut command = reached(&gateway, &server);
        command
            .arg("resend")
            .arg(spool.path())
            .args(["--timeout", seconds]);
        command
    };
    // Without a persister the events stay in the folder, and the run is not created again.
    let early = output(resend("0.3")).await;
    assert_eq!(early.status.code(), Some(69), "{}", text(&early.stderr));
    let late = tokio::spawn(output(resend("20")));
    let mut stored = Vec::new();
    while !late.is_finished() {
        stored.extend(run.settle().await);
        sleep(Duration::from_millis(10)).await;
    }
    let late = late.await.expect("ends");
    assert_eq!(late.status.code(), Some(0), "{}", text(&late.stderr));
    assert_eq!(folders(spool.path()), 0);

    let asked = gateway.asked();
    assert!(
        asked[0]
            .to_lowercase()
            .contains(&format!("idempotency-key: {key}\r\n")),
        "{asked:?}"
    );
    assert!(
        asked[0].ends_with(r#"{"name":"nightly","variations":2,"labels":{"team":"search"}}"#),
        "{asked:?}"
    );
    assert!(
        asked[1].starts_with(&format!("POST /v1/runs/{}/publish ", target.run)),
        "{asked:?}"
    );
    assert_whole_run(&stored);
}

/// The key of the only run in a folder of spools, of its variation 1.
fn spooled_run(folder: &Path) -> String {
    let entry = std::fs::read_dir(folder).expect("a folder").next();
    let name = entry.expect("one").expect("one").file_name();
    let name = name.to_str().expect("text");
    name.strip_suffix("-1").expect("variation 1").to_owned()
}

/// Start, two lines, and an end with exit code 4 and a seal over the others.
fn assert_whole_run(stored: &[Event]) {
    let lines: Vec<serde_json::Value> = stored
        .iter()
        .map(|event| serde_json::from_slice(&event.line).expect("JSON"))
        .collect();
    let kinds: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["kind"].as_str())
        .collect();
    assert_eq!(
        (kinds.len(), kinds[0], kinds[3]),
        (4, "status", "status"),
        "{lines:?}"
    );
    let last: StatusChange = serde_json::from_slice(&stored[3].line).expect("a status");
    assert_eq!(
        (last.exit_code, last.seal.map(|seal| seal.events)),
        (Some(4), Some(3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_run_is_joined_and_the_output_spooled() {
    let spool = tempfile::tempdir().expect("a folder");
    let server = Server::down();
    let target = server.target();
    let gateway = Gateway::answering(vec![reply(&target)]);
    let mut command = reached(&gateway, &server);
    command.args(["wrap", "--drain-timeout", "0.3", "--spool"]);
    command.arg(spool.path()).args(["--", "echo", "kept"]);
    let ran = output(command).await;
    assert_eq!(
        (ran.status.code(), ran.stdout),
        (Some(0), b"kept\n".to_vec())
    );
    let stderr = text(&ran.stderr);
    assert!(stderr.contains("3 events are not sent yet"), "{stderr}");
    assert!(stderr.contains(&target.run.to_string()), "{stderr}");
    assert_eq!(folders(spool.path()), 1);
}

#[test]
fn an_unusable_spool_is_reported_in_one_line_and_the_command_runs() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut command = runcast();
    command
        .args(["wrap", "--spool"])
        .arg(file.path())
        .args(["--", "echo", "ran"]);
    let ran = command.output().expect("runs");
    assert_eq!(
        (ran.status.code(), ran.stdout),
        (Some(0), b"ran\n".to_vec())
    );
    let stderr = text(&ran.stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.contains(file.path().to_str().expect("text")),
        "{stderr}"
    );
}

#[test]
fn require_applies_with_a_spool_too() {
    let spool = tempfile::tempdir().expect("a folder");
    let mut command = runcast();
    command
        .args(["wrap", "--require", "--spool"])
        .arg(spool.path());
    let ran = command.args(["--", "echo", "ran"]).output().expect("runs");
    assert_eq!((ran.status.code(), ran.stdout), (Some(69), Vec::new()));
    assert_eq!(folders(spool.path()), 0);
}

#[test]
fn an_empty_folder_is_a_success_and_a_missing_one_is_not() {
    let spool = tempfile::tempdir().expect("a folder");
    let code = |folder: &Path| {
        let ran = runcast().arg("resend").arg(folder).output().expect("runs");
        ran.status.code()
    };
    assert_eq!(code(spool.path()), Some(0));
    assert_eq!(code(&spool.path().join("none")), Some(66));
}
