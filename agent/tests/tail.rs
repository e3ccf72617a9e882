//! `runcast tail` as its users see it: every event once, across lost connections.

mod support;

use std::process::{Command, Output};

use support::gateway::{Gateway, json, stream};

const RUN: &str = "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b";

async fn tail(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
    command
        .env("RUNCAST_URL", &gateway.url)
        .env("RUNCAST_TOKEN", "very-secret")
        .args(["tail", RUN])
        .args(arguments);
    tokio::task::spawn_blocking(move || command.output().expect("runs"))
        .await
        .expect("ends")
}

fn output(seq: u64, id: &str) -> String {
    let data = format!(
        r#"{{"kind":"output","variation":0,"time":1,"text":"line {seq}\n","id":"{id}","producer":"p","seq":{seq}}}"#
    );
    format!("event: output\ndata: {data}\nid: {id}\n\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_continues_after_the_last_complete_frame() {
    let cut = output(3, "7-3");
    let first = format!(
        "retry: 10\n{}:\n{}{}",
        output(1, "7-1"),
        output(2, "7-2"),
        &cut[..cut.len() - 1]
    );
    let second = format!(
        "{}{}event: end\ndata: {{\"kind\":\"end\",\"status\":\"succeeded\"}}\nid: 7-3\n\n",
        output(2, "8-1"),
        output(3, "8-2")
    );
    let gateway = Gateway::answering(vec![stream(&first), stream(&second)]);
    let output = tail(&gateway, &["--channel", "output:0", "--channel", "status"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"line 1\nline 2\nline 3\n");

    let asked = gateway.asked();
    let path = format!("GET /v1/runs/{RUN}/stream?channel=output%3A0&channel=status HTTP/1.1");
    assert!(asked[0].starts_with(&path), "{}", asked[0]);
    assert!(!asked[0].to_lowercase().contains("last-event-id"));
    assert!(
        asked[1]
            .to_lowercase()
            .contains("\r\nlast-event-id: 7-2\r\n"),
        "{}",
        asked[1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_run_is_a_success_and_an_unknown_one_an_error() {
    for (answer, code, message) in [
        (
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned(),
            0,
            "",
        ),
        (json("404 Not Found", "{}"), 66, "there is no run"),
        (
            json("401 Unauthorized", r#"{"detail":"expired"}"#),
            77,
            "RUNCAST_TOKEN is refused",
        ),
        (
            json("400 Bad Request", r#"{"detail":"no cursor"}"#),
            1,
            "no cursor",
        ),
    ] {
        let gateway = Gateway::answering(vec![answer]);
        let output = tail(&gateway, &["--after", "7-1"]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(
            stderr.contains(message) && !stderr.contains("very-secret"),
            "{stderr}"
        );
        assert!(
            gateway.asked()[0]
                .to_lowercase()
                .contains("\r\nlast-event-id: 7-1\r\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_printed_line_by_line() {
    let end = "event: end\ndata: {\"kind\":\"end\",\"status\":\"failed\"}\nid: 7-1\n\n";
    let gateway = Gateway::answering(vec![stream(&format!("{}{end}", output(1, "7-1")))]);
    let output = tail(&gateway, &["--json"]).await;
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["text"], "line 1\n");
    assert_eq!(lines[1]["kind"], "end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_held_back_is_replaced_by_long_polls() {
    let event = |seq: u64| {
        format!(
            r#"{{"kind":"output","variation":0,"text":"line {seq}\n","id":"7-{seq}","producer":"p","seq":{seq}}}"#
        )
    };
    let page = |events: &[String], newer: &str, ended: bool| {
        let cursors = format!(r#"{{"kind":"page","newer":"{newer}","ended":{ended}}}"#);
        json(
            "200 OK",
            format!("{}\n{cursors}\n", events.join("\n")).trim_start(),
        )
    };
    let gateway = Gateway::answering(vec![
        stream(""),
        page(&[event(1), event(2)], "7-2", false),
        page(&[], "7-5", false),
        page(&[event(6)], "7-6", true),
        json("200 OK", r#"{"status":"failed"}"#),
    ]);
    let output = tail(&gateway, &["--channel", "output"]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(output.stdout, b"line 1\nline 2\nline 6\n");
    assert!(
        stderr.contains("long polls") && stderr.contains("the run has failed"),
        "{stderr}"
    );
    let asked = gateway.asked();
    for (request, after) in asked[1..4].iter().zip(["0-0", "7-2", "7-5"]) {
        let path = format!("GET /v1/runs/{RUN}/events?after={after}&wait=25&channel=output ");
        assert!(request.starts_with(&path), "{request}");
    }
}
