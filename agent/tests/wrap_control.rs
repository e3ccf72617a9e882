//! Control commands to a wrapped command: what they do to its processes and its terminal, and how
//! they are answered.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runcast_common::protocol::event::Action;
use runcast_tests::process::shell_exit_code;
use support::eventually;
use support::wrapped::Wrapped;

fn start(mut command: Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs")
}

async fn code(process: &mut Child) -> Option<i32> {
    let mut status = None;
    eventually("it ends", async || {
        status = process.try_wait().expect("asked");
        status.is_some()
    })
    .await;
    Some(shell_exit_code(status.expect("known by now")))
}

/// The state of a process from `/proc`; none if it does not exist.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

async fn pid_in(file: &Path) -> String {
    eventually("the process has started", async || file.exists()).await;
    let pid = fs::read_to_string(file).expect("a pid");
    pid.trim().to_owned()
}

/// A script that starts a daemon in a session of its own, which ignores SIGTERM and writes its id.
fn daemon(file: &Path) -> String {
    format!(
        "(setsid sh -c 'trap \"\" TERM; echo $$ >{0}.new; mv {0}.new {0}; \
         while :; do sleep 0.05; done' &)",
        file.display()
    )
}

async fn last_status(wrapped: &Wrapped) -> String {
    let events = wrapped.events().await;
    let last = events.last().expect("an event");
    last["status"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_kills_a_command_that_ignores_sigterm() {
    let wrapped = Wrapped::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!(
        "trap '' TERM; {}; while :; do sleep 0.05; done",
        daemon(&file)
    );
    let arguments = ["--cancel-grace", "0.3", "--", "sh", "-c", &script];
    let mut process = start(wrapped.command(&arguments));
    let daemon = pid_in(&file).await;
    let id = wrapped.give(Action::Cancel, "").await;
    assert_eq!(code(&mut process).await, Some(137));
    assert_eq!(wrapped.answer(id).await, "done");
    assert_eq!(state(&daemon), None);
    assert_eq!(last_status(&wrapped).await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_processes_that_a_command_left_behind() {
    for tty in [None, Some("--tty")] {
        let wrapped = Wrapped::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let script = format!("{}; exec sleep 60", daemon(&file));
        let tty = tty.into_iter();
        let arguments: Vec<&str> = tty
            .chain(["--cancel-grace", "0.5", "--", "sh", "-c", &script])
            .collect();
        let mut process = start(wrapped.command(&arguments));
        let daemon = pid_in(&file).await;
        let id = wrapped.give(Action::Cancel, "").await;
        assert_eq!(code(&mut process).await, Some(128 + 15));
        assert_eq!(wrapped.answer(id).await, "done");
        assert_eq!(state(&daemon), None);
        assert_eq!(last_status(&wrapped).await, "cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_stops_all_processes_and_resume_continues_them() {
    let wrapped = Wrapped::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!(
        "{}; i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done",
        daemon(&file)
    );
    let arguments = ["--cancel-grace", "0.2", "--", "sh", "-c", &script];
    let mut process = start(wrapped.command(&arguments));
    let daemon = pid_in(&file).await;
    let command = wrapped.started().await.to_string();
    assert_eq!(wrapped.tell(Action::Pause, "").await, "done");
    // A shell whose child was stopped between vfork and exec waits for it in the kernel.
    eventually("all of it stands still", async || {
        [&command, &daemon]
            .iter()
            .all(|pid| matches!(state(pid), Some('T' | 'D')))
    })
    .await;
    // Another one does no harm.
    assert_eq!(wrapped.tell(Action::Pause, "").await, "done");
    assert_eq!(wrapped.tell(Action::Resume, "").await, "done");
    let so_far = wrapped.text("stdout").await.len();
    eventually("it goes on", async || {
        wrapped.text("stdout").await.len() > so_far
    })
    .await;
    assert_ne!(state(&daemon), Some('T'));

    assert_eq!(wrapped.tell(Action::Pause, "").await, "done");
    let id = wrapped.give(Action::Cancel, "").await;
    assert_eq!(code(&mut process).await, Some(128 + 15));
    assert_eq!(wrapped.answer(id).await, "done");
    assert_eq!((state(&command), state(&daemon)), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_typed_into_the_terminal() {
    let wrapped = Wrapped::start().await;
    let script = "stty -echo; echo ready; read x; echo got $x; read x; exit 3";
    let arguments = ["--tty", "--", "sh", "-c", script];
    let mut command = wrapped.command(&arguments);
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    eventually("it asks", async || {
        wrapped.text("tty").await.contains("ready\n")
    })
    .await;
    assert_eq!(wrapped.tell(Action::Input, "hello\n").await, "done");
    eventually("it has the text", async || {
        wrapped.text("tty").await.contains("got hello\n")
    })
    .await;
    let long = "x".repeat(4096);
    let refused = wrapped.tell(Action::Input, &long).await;
    assert!(refused.contains("4096 bytes is too long"), "{refused}");
    // The end of the own stdin is the end of the terminal's input.
    drop(process.stdin.take());
    assert_eq!(code(&mut process).await, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn input_without_a_terminal_is_refused() {
    let wrapped = Wrapped::start().await;
    let mut process = start(wrapped.command(&["sleep", "60"]));
    wrapped.started().await;
    let refused = wrapped.tell(Action::Input, "hello\n").await;
    assert!(refused.contains("--tty"), "{refused}");
    wrapped.give(Action::Cancel, "").await;
    assert_eq!(code(&mut process).await, Some(128 + 15));
}
