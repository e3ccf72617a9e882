//! Fifty thousand lines at full speed: all stored, once each, and sealed. The time is printed.

use std::io::Write as _;
use std::time::Instant;

use runcast_common::protocol::event::Kind;
use runcast_tests::database::text;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::shell_exit_code;
use runcast_tests::stack::Stack;

use crate::viewer::{Viewer, assert_text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_lines_are_stored_once() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("seq").await.id;
    let viewer = Viewer::new(stack.api(), run);
    let viewer = tokio::spawn(async {
        let viewer = viewer.until(|event| event["text"] == "50000\n").await;
        (viewer, Instant::now())
    });
    let start = Instant::now();
    let mut wrap = stack.wrap(run, &["seq", "0", "50000"]);
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    let ended = start.elapsed();
    let (viewer, displayed) = viewer.await.expect("the viewer's task");
    let displayed = displayed - start;
    let state = async || stack.database.run(run).await.sealed;
    while !state().await {
        assert!(
            start.elapsed() < WAIT_DEADLINE,
            "not sealed within {WAIT_DEADLINE:?}"
        );
        tokio::task::yield_now().await;
    }
    let sealed = start.elapsed();

    let output: String = (0..=50_000).map(|number| format!("{number}\n")).collect();
    let events = stack.database.wait_sealed(run).await;
    // Not how many rows: a line that `seq` writes in two parts, with a pause between them, is two.
    assert_text(&text(&events, Kind::Output), &output);
    assert_text(&viewer.text("output"), &output);
    assert_eq!(wrap.stdout(), output.as_bytes());
    // Bypasses the test runner, which prints only the output of failed tests.
    let times = format!(
        "seq 0 50000: wrap ended after {ended:?}, last line shown after {displayed:?}, sealed after {sealed:?}\n"
    );
    std::io::stderr()
        .write_all(times.as_bytes())
        .expect("stderr takes a line");
}
