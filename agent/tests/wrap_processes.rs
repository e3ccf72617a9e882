//! The processes below `runcast wrap`: their ends are noticed and reaped, and distinguished from
//! the command's.

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::PATIENCE;
use support::wrapped::runcast;

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_status_of_a_short_command_is_never_confused() {
    for number in 0..200 {
        let code = number % 256;
        // Orphans that end at the same time with another status.
        let script = format!("(exit 99 &); (exit 98 &); exit {code}");
        let status = runcast()
            .args(["wrap", "--", "sh", "-c", &script])
            .stderr(Stdio::null())
            .status();
        assert_eq!(status.expect("runs").code(), Some(code));
    }
}

#[test]
fn the_status_is_right_when_the_parent_ignores_sigchld() {
    let script = format!(
        "trap '' CHLD; {} wrap -- sh -c 'exit 5'",
        env!("CARGO_BIN_EXE_runcast")
    );
    let status = Command::new("bash").args(["-c", &script]).status();
    assert_eq!(status.expect("runs").code(), Some(5));
}

#[test]
fn a_daemon_is_adopted_and_leaves_no_zombie() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = folder.path().join("pid");
    let script = format!(
        "(setsid sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 60' >/dev/null 2>&1 &); \
         read x",
        written.display()
    );
    let mut process = runcast()
        .args(["wrap", "--", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    until("the daemon has started", || written.exists());
    let daemon = fs::read_to_string(&written).expect("a pid");
    let daemon = daemon.trim();
    let parent = || {
        let stat = fs::read_to_string(format!("/proc/{daemon}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.split(' ').nth(1)?.parse::<u32>().ok()
    };
    until("it is ours", || parent() == Some(process.id()));
    let killed = Command::new("kill").arg(daemon).status();
    assert!(killed.expect("runs").success());
    until("nothing is left of it", || parent().is_none());
    assert!(process.try_wait().expect("asked").is_none());
    drop(process.stdin.take());
    assert_eq!(process.wait().expect("ends").code(), Some(1));
}

#[test]
fn as_process_1_it_leaves_no_zombie_and_returns_the_status() {
    let namespace = ["-r", "-p", "-f", "--mount-proc"];
    // It needs root, or a kernel that allows user namespaces for everybody, as most do.
    let probe = Command::new("unshare").args(namespace).arg("true").output();
    let probe = probe.expect("unshare is installed");
    assert!(probe.status.success(), "{probe:?}");
    let script = "(exit 3 &); (exit 4 &); tries=0; \
                  while grep -q ') Z ' /proc/[0-9]*/stat; do \
                    tries=$((tries+1)); [ $tries -lt 400 ] || exit 1; sleep 0.05; \
                  done; echo $PPID; exit 9";
    let output = Command::new("unshare")
        .args(namespace)
        .args([
            env!("CARGO_BIN_EXE_runcast"),
            "wrap",
            "--",
            "sh",
            "-c",
            script,
        ])
        .env_remove("RUNCAST_URL")
        .env("RUNCAST_DATA_DIR", "/nowhere")
        .output()
        .expect("runs");
    assert_eq!(output.stdout, b"1\n");
    assert_eq!(output.status.code(), Some(9));
}
