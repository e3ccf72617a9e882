//! The environment that `runcast wrap` gives its command: the run and a token of it, and none of
//! the credentials that it uses itself.

mod support;

use std::process::Output;

use support::wrapped::{RUN_TOKEN, Wrapped, runcast};

/// The variables of Runcast and Redis in the output of `env`, sorted.
fn variables(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let is_own = |line: &&str| line.starts_with("RUNCAST_") || line.starts_with("REDIS_");
    let mut own: Vec<String> = text.lines().filter(is_own).map(str::to_owned).collect();
    own.retain(|line| !line.starts_with("RUNCAST_DATA_DIR="));
    own.sort();
    own
}

fn names(output: &Output) -> Vec<String> {
    let name = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
    variables(output).iter().map(name).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_gets_the_run_and_no_credentials_of_runcast() {
    for tty in [&[][..], &["--tty"]] {
        let wrapped = Wrapped::start().await;
        let arguments = [tty, &["--variation", "3", "--", "env"]].concat();
        let output = wrapped.output(&arguments).await;
        let [run, token, url, variation] = &variables(&output)[..] else {
            panic!("{output:?}")
        };
        assert_eq!(run, &format!("RUNCAST_RUN={}", wrapped.target.run));
        assert_eq!(token, &format!("RUNCAST_TOKEN={RUN_TOKEN}"));
        assert!(url.starts_with("RUNCAST_URL=http://127.0.0.1:"), "{url}");
        assert_eq!(variation, "RUNCAST_VARIATION=3");
        let stream = if tty.is_empty() { "stdout" } else { "tty" };
        let shown = wrapped.text(stream).await;
        assert!(shown.contains("RUNCAST_TOKEN=[redacted]"), "{shown}");
        assert!(!shown.contains(RUN_TOKEN), "{shown}");
        let told = stderr(&output).matches("--keep-env REDIS_URL").count();
        assert_eq!(told, 1, "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_keep_variables_and_leave_the_token_out() {
    let wrapped = Wrapped::start().await;
    let arguments = ["--no-token", "--keep-env", "REDIS_URL", "--", "env"];
    let output = wrapped.output(&arguments).await;
    let expected = [
        "REDIS_URL",
        "RUNCAST_RUN",
        "RUNCAST_URL",
        "RUNCAST_VARIATION",
    ];
    assert_eq!(names(&output), expected);
    assert!(!stderr(&output).contains("REDIS_URL"), "{output:?}");
    let wrapped = Wrapped::start().await;
    let output = wrapped
        .output(&["--keep-env", "RUNCAST_TOKEN", "--", "env"])
        .await;
    let kept = "RUNCAST_TOKEN=very-secret".to_owned();
    assert!(variables(&output).contains(&kept), "{output:?}");
}

#[test]
fn an_unpublished_command_gets_no_credentials_either() {
    let output = runcast()
        .env("RUNCAST_URL", "http://me:pass@127.0.0.1:1")
        .env("RUNCAST_TOKEN", "very-secret")
        .env("REDIS_URL", "redis://127.0.0.1:1")
        .args(["wrap", "--", "env"])
        .output()
        .expect("runs");
    assert_eq!(variables(&output), ["RUNCAST_URL=http://127.0.0.1:1/"]);
    assert!(!stderr(&output).contains("very-secret"), "{output:?}");
}

/// An outer wrap that spools has no token to hand on, but its output is published later.
#[test]
fn a_wrap_within_a_wrap_that_spools_spools_nothing() {
    let spool = tempfile::tempdir().expect("a folder");
    let inner = [env!("CARGO_BIN_EXE_runcast"), "wrap", "--", "echo", "hello"];
    let output = runcast()
        .env("RUNCAST_SPOOL", spool.path())
        .args(["wrap", "--"])
        .args(inner)
        .output()
        .expect("runs");
    assert_eq!(output.stdout, b"hello\n");
    let said = stderr(&output);
    assert_eq!(
        said.matches("nothing is published twice").count(),
        1,
        "{said}"
    );
    assert_eq!(said.matches("events are spooled in").count(), 1, "{said}");
    let folders = std::fs::read_dir(spool.path()).expect("a folder").count();
    assert_eq!(folders, 1);
}
