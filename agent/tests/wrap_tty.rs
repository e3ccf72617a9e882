//! `runcast wrap --tty`: the command gets a terminal, with or without one of its parent, and none
//! of its output is lost or changed.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pty_process::Size;
use pty_process::blocking::{Pty, open};
use runcast_tests::process::shell_exit_code;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetattr;
use support::PATIENCE;
use support::wrapped::{Wrapped, runcast};

/// Stdout of `runcast wrap --tty` without a terminal, and its exit code.
fn output(script: &str, settings: &[(&str, &str)]) -> (Vec<u8>, Option<i32>) {
    let output = runcast()
        .env_remove("TERM")
        .env_remove("COLUMNS")
        .env_remove("LINES")
        .envs(settings.iter().copied())
        .args(["wrap", "--tty", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    (output.stdout, Some(shell_exit_code(output.status)))
}

fn text(script: &str, settings: &[(&str, &str)]) -> String {
    String::from_utf8(output(script, settings).0).expect("text")
}

#[test]
fn the_command_gets_a_terminal_without_one_outside() {
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM; \
                  echo x >/dev/tty; exit 7";
    let (out, code) = output(script, &[]);
    let expected = "40 120\nxterm-256color\nx\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
    assert_eq!(code, Some(7));
    let sizes = [("COLUMNS", "99"), ("LINES", "33"), ("TERM", "vt100")];
    assert_eq!(text("stty size; echo $TERM", &sizes), "33 99\nvt100\n");
    let colours = text("echo one | grep --color=auto one", &[]);
    assert!(colours.contains('\x1b'), "{colours:?}");
}

#[test]
fn a_command_that_cannot_run_is_reported_as_without_a_terminal() {
    for (code, command) in [(127, "no-such-command"), (126, "/etc/passwd")] {
        let output = runcast().args(["wrap", "--tty", command]).output();
        assert_eq!(output.expect("runs").status.code(), Some(code), "{command}");
    }
    assert_eq!(output("kill -9 $$", &[]).1, Some(137));
}

#[test]
fn ten_megabytes_are_unchanged() {
    let (out, code) = output("seq 1 1450000", &[]);
    let expected: String = (1..=1_450_000)
        .map(|number| format!("{number}\n"))
        .collect();
    assert!(expected.len() > 10_000_000);
    assert!(out == expected.as_bytes(), "{} bytes", out.len());
    assert_eq!(code, Some(0));
}

#[test]
fn the_last_bytes_are_never_lost() {
    for _ in 0..100 {
        assert_eq!(text("seq 1 500; printf end", &[]).len(), 1892 + 3);
    }
    // Another process still has the terminal open, longer than `runcast` waits for it.
    assert!(text("sleep 4 & seq 1 20000", &[]).ends_with("\n20000\n"));
}

#[test]
fn stdin_and_its_end_are_typed() {
    for (script, input, expected) in [
        ("cat; echo over", "one\ntwo\n", "over"),
        ("stty -echo; cat", "no end", "no end"),
    ] {
        let mut process = runcast()
            .args(["wrap", "--tty", "--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs");
        let mut stdin = process.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("written");
        drop(stdin);
        let output = process.wait_with_output().expect("ends");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out.trim_end().ends_with(expected), "{script}: {out:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_are_published_as_one_in_exact_order() {
    let wrapped = Wrapped::start().await;
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done";
    let output = wrapped.output(&["--tty", "--", "sh", "-c", script]).await;
    let lines: String = (1..10).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), lines);
    let events = wrapped.events().await;
    let of_tty = events.iter().filter(|event| event["stream"] == "tty");
    assert!(of_tty.clone().all(|event| event["kind"] == "output"));
    assert_eq!(of_tty.count(), 18);
    assert_eq!(wrapped.text("tty").await, lines);
}

/// A terminal with `runcast wrap --tty` in it.
struct OuterTerminal {
    terminal: Pty,
    seen: String,
}

impl OuterTerminal {
    /// Reads until a text appears.
    fn until(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        while !self.seen.contains(wanted) {
            assert!(Instant::now() < deadline, "{wanted:?} in {:?}", self.seen);
            let mut ready = [PollFd::new(&self.terminal, PollFlags::IN)];
            let a_moment = Timespec {
                tv_sec: 0,
                tv_nsec: 50_000_000,
            };
            if poll(&mut ready, Some(&a_moment)).expect("asked") > 0 {
                let length = self.terminal.read(&mut buffer).expect("read");
                self.seen += &String::from_utf8_lossy(&buffer[..length]);
            }
        }
        let end = self.seen.find(wanted).expect("just found") + wanted.len();
        self.seen.drain(..end);
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).expect("written");
    }
}

#[test]
fn the_own_terminal_is_taken_over_and_restored() {
    let (terminal, pts) = open().expect("a terminal");
    terminal.resize(Size::new(33, 99)).expect("resized");
    let script = "trap 'echo int; exit 5' INT; trap 'stty size' WINCH; stty size; \
                  echo ready; while :; do sleep 0.05; done";
    // A shell cannot trap a signal that was ignored when it started, as SIGINT is for tests in the
    // background.
    let shell = ["env", "--default-signal", "sh", "-c", script];
    let mut command = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_runcast"))
        .env_remove("RUNCAST_URL")
        .env("RUNCAST_DATA_DIR", "/nowhere")
        .args(["wrap", "--tty", "--"])
        .args(shell);
    let before = tcgetattr(&terminal).expect("modes");
    let mut process = command.spawn_borrowed(&pts).expect("runs");
    let mut screen = OuterTerminal {
        terminal,
        seen: String::new(),
    };
    screen.until("33 99\r\nready\r\n");
    let raw = tcgetattr(&screen.terminal).expect("modes");
    assert_ne!(raw.local_modes, before.local_modes);
    screen.terminal.resize(Size::new(44, 111)).expect("resized");
    screen.until("44 111\r\n");
    screen.press("\x03");
    screen.until("int\r\n");
    assert_eq!(process.wait().expect("ends").code(), Some(5));
    let after = tcgetattr(&screen.terminal).expect("modes");
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.input_modes, before.input_modes);
    assert_eq!(after.output_modes, before.output_modes);
}

#[test]
fn a_signal_that_ends_runcast_restores_the_terminal() {
    let (terminal, pts) = open().expect("a terminal");
    let mut command = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_runcast"))
        .env_remove("RUNCAST_URL")
        .env("RUNCAST_DATA_DIR", "/nowhere")
        .args([
            "wrap",
            "--tty",
            "--",
            "sh",
            "-c",
            "echo ready; exec sleep 60",
        ]);
    let before = tcgetattr(&terminal).expect("modes");
    let mut process = command.spawn_borrowed(&pts).expect("runs");
    let mut screen = OuterTerminal {
        terminal,
        seen: String::new(),
    };
    screen.until("ready\r\n");
    let pid = i32::try_from(process.id()).expect("a pid");
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("sent");
    assert_eq!(process.wait().expect("ends").signal(), Some(15));
    let after = tcgetattr(&screen.terminal).expect("modes");
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.output_modes, before.output_modes);
}

#[test]
fn killing_runcast_hangs_up_the_terminal_of_the_command() {
    let mut process = runcast()
        .args([
            "wrap",
            "--tty",
            "--",
            "sh",
            "-c",
            "echo $$ $PPID; exec sleep 60",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let mut line = String::new();
    let mut stdout = BufReader::new(process.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("two ids");
    process.kill().expect("killed");
    process.wait().expect("ends");
    let deadline = Instant::now() + PATIENCE;
    for pid in line.split_whitespace() {
        // It may never be reaped here; a zombie has no command line.
        let command = format!("/proc/{pid}/cmdline");
        while std::fs::read(&command).is_ok_and(|words| !words.is_empty()) {
            assert!(Instant::now() < deadline, "{pid} of {line} goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
