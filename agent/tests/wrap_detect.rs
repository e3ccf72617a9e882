//! What `runcast wrap` detects, as viewers see it: fields beside the unchanged text, masked values,
//! progress, and the limit for endless output.

mod support;

use std::process::{Command, Output};

use serde_json::{Value, json};
use support::gateway::{Gateway, json};
use support::wrapped::stored_output;
use support::{Run, Server};

/// Runs a script under `runcast wrap`. Returns its output and the events in Redis, with the raw
/// lines.
async fn wrapped(arguments: &[&str], env: &[(&str, &str)], script: &str) -> (Output, Vec<Value>) {
    let server = Server::start().await;
    let target = server.target();
    let reply = json!({
        "run": {"id": target.run}, "token": "unused", "url": "http://page/#/runs/1",
        "redis": {"url": "redis://127.0.0.1:1", "prefix": target.prefix},
    });
    let gateway = Gateway::answering(vec![json("201 Created", &reply.to_string())]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RUNCAST_URL", &gateway.url)
        .env("RUNCAST_TOKEN", "rct_the-token-of-this-test")
        .env("REDIS_URL", server.url())
        .envs(env.iter().copied())
        .arg("wrap")
        .args(arguments)
        .args(["--", "sh", "-c", script]);
    let run = Run::of(&target, &server);
    let output = stored_output(&run, command).await;
    let events = run.events().await;
    let read = |line: &[u8]| serde_json::from_slice(line).expect("JSON");
    let events = events.iter().map(|event| read(&event.line)).collect();
    (output, events)
}

/// The published text of one kind.
fn text(events: &[Value], kind: &str) -> String {
    let of_kind = events.iter().filter(|event| event["kind"] == kind);
    of_kind.filter_map(|event| event["text"].as_str()).collect()
}

/// The values of a field, of the events that have it.
fn with<'a>(events: &'a [Value], field: &str) -> Vec<&'a Value> {
    let of = |event: &'a Value| event.get(field);
    events.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_keep_their_text_and_get_annotations() {
    let script = r#"
        echo '{"level":30,"time":1,"msg":"ready","port":80}'
        echo '{"level":"warn","message":"slow"}' >&2
        printf 'x\033[0Ksection_start:1:build[collapsed=true]\r\033[0KBuild it\n'
        echo ' ::error file=a.js::Missing%0Asemicolon'
        printf 'section_end:2:build\r\033[0Ksection_start:3:test\r\033[0KTest\n'
        echo '::group::A'; echo '##[endgroup]'
        echo '--- a/file'"#;
    let (output, events) = wrapped(&[], &[], script).await;
    assert_eq!(text(&events, "output").as_bytes(), output.stdout);
    assert_eq!(
        text(&events, "log"),
        "{\"level\":\"warn\",\"message\":\"slow\"}\n"
    );
    let said: Vec<Value> = events
        .iter()
        .filter(|event| event.get("level").is_some())
        .map(|event| {
            json!([
                event["kind"],
                event["level"],
                event["message"],
                event["format"]
            ])
        })
        .collect();
    // The order of lines of different streams is not defined.
    for expected in [
        json!(["output", "info", "ready", "json"]),
        json!(["log", "warn", "slow", "json"]),
        json!(["output", "error", "Missing\nsemicolon", null]),
    ] {
        assert!(said.contains(&expected), "{expected} in {said:?}");
    }
    let groups = with(&events, "group");
    let expected = [
        json!({"state": "start", "id": "build", "title": "Build it", "collapsed": true}),
        json!({"state": "end", "id": "build"}),
        json!({"state": "start", "id": "test", "title": "Test"}),
        json!({"state": "start", "id": "github", "title": "A", "collapsed": true}),
        json!({"state": "end", "id": "github"}),
    ];
    assert_eq!(groups, expected.iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_requested_markers_are_detected() {
    let script = "echo '--- One'; echo '::group::Two'; echo '^^^ +++'";
    let (_, events) = wrapped(&[], &[("BUILDKITE", "true")], script).await;
    assert_eq!(with(&events, "group").len(), 3);
    let (_, events) = wrapped(&["--markers", "github"], &[("BUILDKITE", "true")], script).await;
    assert_eq!(with(&events, "group").len(), 1);
    let (_, events) = wrapped(&["--markers", "none"], &[], script).await;
    assert_eq!(with(&events, "group").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_mask_value_is_published_nowhere() {
    // The value is computed at run time, since the command line is published too.
    let script = r#"
        value=$(printf 'hidden-%s' in-parts-1234)
        printf '::add-mask::hidden-'; sleep 0.3; echo in-parts-1234
        echo "it is $value"; printf "$value" | base64
        echo '::add-mask::abc'
        echo '::stop-commands::token'; echo '::add-mask::not-a-secret'; echo '::token::'
        echo not-a-secret"#;
    let (output, events) = wrapped(&[], &[], script).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("it is hidden-in-parts-1234\n"));
    let stdout = text(&events, "output");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[..2], ["::add-mask::[redacted]", "it is [redacted]"]);
    let rest = [
        "::add-mask::[redacted]",
        "::stop-commands::token",
        "::add-mask::not-a-secret",
        "::token::",
        "not-a-secret",
    ];
    assert_eq!(lines[3..], rest);
    assert!(!lines[2].contains("aGlkZGVu"), "{}", lines[2]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("shorter than 6 bytes"), "{stderr}");

    let (_, events) = wrapped(&["--no-redact"], &[], "echo ::add-mask::some-value").await;
    assert_eq!(text(&events, "output"), "::add-mask::some-value\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_rate_limited_and_its_last_message_always_published() {
    let script = r#"
        i=0; while [ $i -le 99 ]; do printf '\033]9;4;1;%s\033\\' $i; i=$((i+1)); done; sleep 0.6
        printf '\033]9;4;1;100\007\n'; echo '##vso[task.setprogress value=75;]Upload'"#;
    let (_, events) = wrapped(&[], &[], script).await;
    let progress: Vec<&Value> = events
        .iter()
        .filter(|event| event["kind"] == "progress")
        .collect();
    assert!((2..=8).contains(&progress.len()), "{progress:?}");
    let last = |label: &str| {
        let of_label = progress.iter().rev().find(|event| event["label"] == label);
        of_label.map(|event| (event["current"].clone(), event["total"].clone()))
    };
    assert_eq!(last("sh"), Some((json!(100), json!(100))));
    assert_eq!(last("Upload"), Some((json!(75), json!(100))));
    // It stayed at 99 for longer than the interval, so that was published.
    assert!(
        progress.iter().any(|event| event["current"] == 99),
        "{progress:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_output_is_published_as_head_and_tail_with_a_counted_gap() {
    let script = "seq 100010";
    let (output, events) = wrapped(&["--max-output", "80KiB"], &[], script).await;
    assert!(output.stdout.ends_with(b"\n100010\n"));
    let passed = String::from_utf8(output.stdout).expect("text");
    let stdout = text(&events, "output");
    let gap_at = events
        .iter()
        .position(|event| event["kind"] == "gap")
        .expect("a gap");
    let gap = &events[gap_at];
    assert_eq!(gap["reason"], "cap");
    let head = text(&events[..gap_at], "output");
    let tail = text(&events[gap_at..], "output");
    assert!(passed.starts_with(&head) && passed.ends_with(&tail));
    assert!(
        (70 * 1024 - 10..=70 * 1024).contains(&head.len()),
        "{}",
        head.len()
    );
    assert!(
        (9 * 1024..=10 * 1024).contains(&tail.len()),
        "{}",
        tail.len()
    );
    assert_eq!(gap["count"], 100_010 - stdout.lines().count() as u64);
    assert_eq!(gap["bytes"], (passed.len() - stdout.len()) as u64);
    let warning = events
        .iter()
        .find(|event| event["level"] == "warn")
        .expect("a warning");
    let said = warning["text"].as_str().expect("text");
    assert!(
        said.contains("70 KiB") || said.contains("69.9 KiB"),
        "{said}"
    );
    let last = events.last().expect("events");
    let message = last["message"].as_str().expect("a message");
    assert!(message.contains("--max-output"), "{message}");
}
