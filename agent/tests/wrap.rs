//! `runcast wrap` as its users see it: the output, exit code and signals of the command are
//! unchanged, whatever happens to publishing.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Status, StatusChange};
use support::gateway::{Gateway, json};
use support::wrapped::runcast;
use support::{Run, Server};

fn wrap(arguments: &[&str]) -> Output {
    let mut command = runcast();
    command.arg("wrap").args(arguments).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_a_gateway_the_command_runs_unpublished() {
    let output = wrap(&["--", "sh", "-c", "printf 'a\\r\\377'; printf e >&2; exit 3"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"a\r\xff");
    let stderr = text(&output.stderr);
    let (line, rest) = stderr.split_once('\n').expect("one line");
    assert!(
        line.contains("nothing is published") && line.contains("RUNCAST_URL"),
        "{line}"
    );
    assert_eq!(rest, "e");
}

#[test]
fn exit_codes_follow_shell_conventions() {
    for (code, command) in [
        (0, &["true"][..]),
        (1, &["false"]),
        (127, &["no-such-command"]),
        (126, &["/etc/passwd"]),
    ] {
        let output = wrap(command);
        assert_eq!(output.status.code(), Some(code), "{command:?}");
    }
    assert_eq!(wrap(&["--variation", "x", "true"]).status.code(), Some(64));
    let killed = wrap(&["sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status.signal(), Some(9));
}

#[test]
fn require_fails_before_the_command_runs() {
    let output = runcast()
        .env("RUNCAST_URL", "http://127.0.0.1:1")
        .env("RUNCAST_TOKEN", "very-secret")
        .args(["wrap", "--require", "--", "echo", "ran"])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(69));
    assert_eq!(output.stdout, b"");
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("RUNCAST_URL http://127.0.0.1:1"),
        "{stderr}"
    );
    assert!(!stderr.contains("very-secret"), "{stderr}");
}

#[test]
fn signals_reach_the_command_with_inherited_dispositions() {
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; echo ready; \
                  while :; do sleep 0.05; done";
    let mut process = runcast()
        .args(["wrap", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let pid = Pid::from_raw(i32::try_from(process.id()).expect("a pid"));
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let mut expect = |what: &str| assert_eq!(lines.next().expect("a line").expect("text"), what);
    expect("ready");
    kill(pid, Signal::SIGUSR1).expect("sent");
    expect("usr1");
    kill(pid, Signal::SIGTERM).expect("sent");
    expect("term");
    assert_eq!(process.wait().expect("ends").code(), Some(5));

    let blocked = wrap(&["--", "grep", "SigBlk", "/proc/self/status"]);
    assert!(
        text(&blocked.stdout)
            .trim_end()
            .ends_with("\t0000000000000000"),
        "{blocked:?}"
    );
}

#[test]
fn a_closed_stdout_closes_that_of_the_command() {
    let mut process = runcast()
        .args(["wrap", "--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let mut line = String::new();
    let mut reader = BufReader::new(process.stdout.take().expect("piped"));
    reader.read_line(&mut line).expect("a line");
    drop(reader);
    assert_eq!(line, "y\n");
    let signal = process.wait().expect("ends").signal();
    assert_eq!(signal, Some(Signal::SIGPIPE as i32));
}

#[test]
fn stdin_belongs_to_the_command() {
    let mut process = runcast()
        .args(["wrap", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let mut stdin = process.stdin.take().expect("piped");
    stdin.write_all(b"hello").expect("written");
    drop(stdin);
    let output = process.wait_with_output().expect("ends");
    assert_eq!(output.stdout, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_published_line_by_line_and_sealed() {
    let server = Server::start().await;
    let target = server.target();
    let run = target.run;
    let reply = serde_json::json!({
        "run": {"id": run}, "token": "unused", "url": "http://page/#/runs/1",
        "redis": {"url": "redis://127.0.0.1:1", "prefix": target.prefix},
    });
    let gateway = Gateway::answering(vec![json("201 Created", &reply.to_string())]);
    let script = "echo one; sleep 0.3; echo two >&2; printf 'h\\303'; sleep 0.4; \
                  printf '\\251\\nno end'; exit 7";
    let mut command = runcast();
    command
        .env("RUNCAST_URL", &gateway.url)
        .env("RUNCAST_TOKEN", "very-secret")
        .env("REDIS_URL", server.url())
        .args([
            "wrap",
            "--variation",
            "1",
            "--variations",
            "3",
            "--drain-timeout",
            "0.5",
        ])
        .args(["--name", "a job", "--", "sh", "-c", script]);
    let output = tokio::task::spawn_blocking(move || command.output().expect("runs"))
        .await
        .expect("ends");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, "one\nhé\nno end".as_bytes());
    let stderr = text(&output.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines[0], "runcast: watch at http://page/#/runs/1");
    assert!(lines[1].contains("--keep-env REDIS_URL"), "{stderr}");
    assert_eq!(lines[2], "two");
    assert!(
        stderr.ends_with("7 events are in Redis but not yet stored in Postgres\n"),
        "{stderr}"
    );

    let asked = &gateway.asked()[0];
    assert!(asked.starts_with("POST /v1/runs HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked
            .to_lowercase()
            .contains("\r\nauthorization: bearer very-secret\r\n"),
        "{asked}"
    );
    assert!(
        asked.ends_with(r#"{"name":"a job","variations":3}"#),
        "{asked}"
    );

    let events = Run::of(&target, &server).events().await;
    assert_sealed_output(&events, script);
}

/// The events of the command above: its start, each line as it was written, its end and its seal.
fn assert_sealed_output(events: &[Event], script: &str) {
    let lines: Vec<serde_json::Value> = events
        .iter()
        .map(|event| serde_json::from_slice(&event.line).expect("JSON"))
        .collect();
    let said: Vec<(&str, &str)> = lines[1..lines.len() - 1]
        .iter()
        .map(|line| {
            assert_eq!(line["variation"], 1);
            let word = |name: &str| line[name].as_str().expect("a word");
            (word("kind"), word("text"))
        })
        .collect();
    let expected = [
        ("output", "one\n"),
        ("log", "two\n"),
        ("output", "h"),
        ("output", "é\n"),
        ("output", "no end"),
    ];
    assert_eq!(said, expected);
    assert_eq!(lines[0]["command"], serde_json::json!(["sh", "-c", script]));
    let status =
        |at: usize| -> StatusChange { serde_json::from_slice(&events[at].line).expect("a status") };
    assert_eq!(status(0).status, Status::Running);
    let last = status(lines.len() - 1);
    assert_eq!((last.status, last.exit_code), (Status::Failed, Some(7)));
    let seal = last.seal.expect("sealed");
    assert_eq!(seal.events, lines.len() as u64 - 1);
}
