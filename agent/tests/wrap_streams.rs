//! `runcast wrap` and the two streams of a command: published in order, passed through separately.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

use support::eventually;
use support::wrapped::{Wrapped, runcast};

/// What `lines` alternating lines are published as.
fn alternating(lines: usize) -> Vec<(String, String)> {
    let streams = ["stdout", "stderr"].into_iter().cycle();
    let numbered = streams.zip(0..lines);
    numbered
        .map(|(stream, number)| (stream.to_owned(), format!("{number}\n")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn alternating_lines_with_tiny_pauses_keep_the_order_of_each_stream() {
    let wrapped = Wrapped::start().await;
    let script = "i=0; while [ $i -lt 200 ]; do echo $i; sleep 0.001; i=$((i+1)); \
                  echo $i >&2; sleep 0.001; i=$((i+1)); done";
    let output = wrapped.output(&["sh", "-c", script]).await;
    assert!(output.status.success(), "{output:?}");
    // If the machine is so busy that two writes precede one read, the two streams may change
    // places.
    let mut texts = wrapped.texts().await;
    texts.sort_by_key(|(stream, _)| stream == "stderr");
    let mut expected = alternating(200);
    expected.sort_by_key(|(stream, _)| stream == "stderr");
    assert_eq!(texts, expected);
}

/// The command writes to the other stream only after its last line was seen, so no clock is
/// involved.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_wait_for_each_other_are_published_in_order() {
    let wrapped = Wrapped::start().await;
    let script = "i=0; while [ $i -lt 100 ]; do echo $i; read x; i=$((i+1)); \
                  echo $i >&2; read x; i=$((i+1)); done";
    // So that no line tells that it is withheld, and none waits because a random password begins
    // like it.
    let keep = ["--keep-env", "REDIS_URL", "--no-redact"];
    let mut command = wrapped.command(&[&keep[..], &["sh", "-c", script]].concat());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let talked = tokio::task::spawn_blocking(move || {
        let mut process = command.spawn().expect("runs");
        let mut stdin = process.stdin.take().expect("piped");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut stderr = BufReader::new(process.stderr.take().expect("piped")).lines();
        let line = stderr.next().expect("a line").expect("text");
        assert!(line.starts_with("runcast: watch at "), "{line}");
        for number in 0..100 {
            let lines: &mut dyn Iterator<Item = _> = match number % 2 {
                0 => &mut stdout,
                _ => &mut stderr,
            };
            let line = lines.next().expect("a line").expect("text");
            assert_eq!(line, number.to_string());
            stdin.write_all(b"\n").expect("written");
        }
        process.wait().expect("ends")
    });
    assert!(talked.await.expect("no panic").success());
    assert_eq!(wrapped.texts().await, alternating(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_stdout_does_not_block_stderr() {
    let wrapped = Wrapped::start().await;
    // Far more than all buffers on the way can hold.
    let script = "head -c 4000000 /dev/zero | tr '\\0' x & echo first >&2; sleep 0.2; seq 100 >&2; echo last >&2; wait";
    let mut command = wrapped.command(&["sh", "-c", script]);
    let mut process = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let stderr = process.stderr.take().expect("piped");
    let stderr = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stderr)
            .lines()
            .map(|line| line.expect("text"));
        lines.find(|line| line == "last")
    });
    assert_eq!(stderr.await.expect("no panic").as_deref(), Some("last"));
    eventually("stderr is published", async || {
        wrapped.text("stderr").await.ends_with("last\n")
    })
    .await;
    assert!(process.try_wait().expect("asked").is_none());
    let mut stdout = process.stdout.take().expect("piped");
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).expect("read");
        bytes.len()
    });
    assert_eq!(read.await.expect("no panic"), 4_000_000);
    assert!(process.wait().expect("ends").success());
}

#[test]
fn both_streams_are_passed_through_completely() {
    let script = "head -c 5000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait; printf 'a\\377' >&2; printf 'b\\376'";
    let output = runcast()
        .args(["wrap", "--", "sh", "-c", script])
        .output()
        .expect("runs");
    assert!(output.status.success());
    let end = output.stderr.iter().position(|&byte| byte == b'\n');
    let stderr = &output.stderr[end.expect("why nothing is published") + 1..];
    assert_eq!((output.stdout.len(), stderr.len()), (5_000_002, 3_000_002));
    assert!(output.stdout.ends_with(b"\0b\xfe") && stderr.ends_with(b"\0a\xff"));
}
