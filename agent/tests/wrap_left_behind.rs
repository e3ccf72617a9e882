//! Processes that a command leaves behind, and own streams that are full, stopped or closed:
//! `runcast wrap` ends soon, and harms no process by a closed pipe.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use runcast_common::protocol::event::{Action, Kind};
use support::eventually;
use support::wrapped::{Wrapped, runcast};

const WORD: &str = "not published";

/// Prints, and goes on after its parent, and after `runcast`, until it may end.
fn left_behind(folder: &std::path::Path) -> String {
    let folder = folder.display();
    format!(
        "(while ! test -e {folder}/go; do sleep .02; done; echo late; echo error >&2; \
         echo $? >{folder}/alive) & echo done"
    )
}

#[test]
fn what_a_command_leaves_behind_goes_on_and_is_passed_on() {
    for tty in [None, Some("--tty")] {
        let folder = tempfile::tempdir().expect("a folder");
        let script = left_behind(folder.path());
        let mut process = runcast()
            .arg("wrap")
            .args(tty)
            .args(["--", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped"));
        let mut stderr = BufReader::new(process.stderr.take().expect("piped"));
        let status = process.wait().expect("ends");
        assert_eq!(status.code(), Some(0));
        let mut line = String::new();
        while !line.contains(WORD) {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("a line") > 0, "no word");
        }
        // Only now it may print, and the own streams are still open for it.
        fs::write(folder.path().join("go"), "").expect("written");
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("text");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).expect("text");
        match tty {
            None => assert_eq!((text.as_str(), rest.as_str()), ("done\nlate\n", "error\n")),
            Some(_) => assert_eq!(text, "done\nlate\nerror\n"),
        }
        let alive = fs::read_to_string(folder.path().join("alive")).expect("it lived");
        assert_eq!(alive, "0\n");
    }
}

#[test]
fn a_reader_that_leaves_ends_what_was_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let pid = folder.path().join("pid");
    let script = format!(
        "(echo $(exec sh -c 'echo $PPID') >{}; exec yes) &",
        pid.display()
    );
    let mut process = runcast()
        .args(["wrap", "--", "bash", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let mut stdout = process.stdout.take().expect("piped");
    let mut some = vec![0; 1 << 20];
    // It is read all the time, else `runcast` would rightly wait for its reader.
    let status = loop {
        stdout.read_exact(&mut some).expect("endless");
        if let Some(status) = process.try_wait().expect("asked") {
            break status;
        }
    };
    assert_eq!(status.code(), Some(0));
    drop(stdout);
    let pid = fs::read_to_string(&pid).expect("a pid");
    let command = format!("/proc/{}/cmdline", pid.trim());
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while fs::read(&command).is_ok_and(|words| !words.is_empty()) {
        assert!(std::time::Instant::now() < deadline, "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_says_what_is_no_longer_published() {
    let wrapped = Wrapped::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    // Published while `runcast` still waits for it.
    let script = format!("(sleep .2; echo soon) & {}", left_behind(folder.path()));
    let mut command = wrapped.command(&["sh", "-c", &script]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn().expect("runs");
    let status = tokio::task::spawn_blocking(move || process.wait().expect("ends"));
    assert!(status.await.expect("no panic").success());
    fs::write(folder.path().join("go"), "").expect("written");
    assert_eq!(wrapped.text("stdout").await, "done\nsoon\n");
    let said = wrapped.text("runcast").await;
    assert!(said.contains(WORD), "{said}");
    let events = wrapped.events().await;
    let last = events.last().expect("the last event");
    assert_eq!(
        (&last["kind"], &last["status"]),
        (&Kind::Status.name().into(), &"succeeded".into())
    );
    let message = last["message"].as_str().unwrap_or_default();
    assert!(message.contains(WORD), "{last}");
    eventually("it lives", async || folder.path().join("alive").exists()).await;
}

/// A non-blocking own stdout loses nothing, with and without a terminal of the command.
#[test]
fn a_non_blocking_stdout_is_written_completely() {
    for (tty, lines) in [("", 200_000), ("--tty", 60_000)] {
        for reader in ["sleep 1; cksum", "cksum"] {
            let script = format!(
                "perl -MFcntl -e 'fcntl(STDOUT, F_SETFL, O_NONBLOCK) or die; exec @ARGV' \
                 \"$0\" wrap {tty} -- seq {lines} 2>/dev/null | ({reader}); seq {lines} | cksum"
            );
            let output = std::process::Command::new("bash")
                .args(["-c", &script, env!("CARGO_BIN_EXE_runcast")])
                .env("RUNCAST_DATA_DIR", "/nowhere")
                .env_remove("RUNCAST_URL")
                .output()
                .expect("runs");
            let text = String::from_utf8(output.stdout).expect("text");
            let mut sums = text.lines();
            assert_eq!(sums.next(), sums.next(), "{tty} {reader}");
        }
    }
}

/// Flags of the own streams belong to all processes that share them.
#[test]
fn the_flags_of_the_own_streams_are_not_changed() {
    let flags = "grep flags /proc/self/fdinfo/[012]";
    let script =
        format!("{flags}; \"$0\" wrap -- true; {flags}; \"$0\" wrap --tty -- true; {flags}");
    let output = runcast_shell(&script);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((&lines[..3], &lines[..3]), (&lines[3..6], &lines[6..9]));
}

/// The reader of an output sees its end when the command closes it.
#[test]
fn an_output_that_the_command_closes_ends_for_its_reader() {
    let mut process = runcast()
        .args(["wrap", "--", "sh", "-c", "echo x; exec >&- 2>&-; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let mut text = String::new();
    let mut stdout = process.stdout.take().expect("piped");
    stdout.read_to_string(&mut text).expect("text");
    assert_eq!(text, "x\n");
    assert!(process.try_wait().expect("asked").is_none());
    drop(process.stdin.take());
    assert_eq!(process.wait().expect("ends").code(), Some(1));
}

/// A reader that stops delays the command, but nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_does_not_stop_publishing() {
    let wrapped = Wrapped::start().await;
    let mut command = wrapped.command(&["sh", "-c", "echo first; exec yes"]);
    let mut process = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    eventually("the first line is published", async || {
        wrapped.text("stdout").await.starts_with("first\n")
    })
    .await;
    assert_eq!(wrapped.tell(Action::Pause, "").await, "done");
    assert_eq!(wrapped.tell(Action::Resume, "").await, "done");
    drop(process.stdout.take());
    let status = tokio::task::spawn_blocking(move || process.wait().expect("ends"));
    let signal = std::os::unix::process::ExitStatusExt::signal(&status.await.expect("no panic"));
    assert_eq!(signal, Some(13));
}

fn runcast_shell(script: &str) -> String {
    let output = std::process::Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_runcast")])
        .env("RUNCAST_DATA_DIR", "/nowhere")
        .env_remove("RUNCAST_URL")
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    String::from_utf8(output.stdout).expect("text")
}
