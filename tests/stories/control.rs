//! Commands to runs over HTTP: a run is cancelled or killed, and all viewers see the result.

use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode};
use runcast_common::protocol::event::Kind;
use runcast_tests::api::{problem, send};
use runcast_tests::database::text;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::shell_exit_code;
use runcast_tests::sse::Frame;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use uuid::Uuid;

/// Sends a command to a run, with this token or the admin's.
async fn send_command(stack: &Stack, run: Uuid, token: Option<&str>, body: Value) -> Response {
    let (api, path) = (stack.api(), format!("/v1/runs/{run}/control"));
    let request = match token {
        Some(token) => api.anonymous(Method::POST, &path).bearer_auth(token),
        None => api.request(Method::POST, &path),
    };
    let request = request.header("content-type", "application/json");
    send(request.body(body.to_string())).await
}

/// The id of the accepted command.
async fn accepted(response: Response) -> String {
    let status = response.status();
    let body = response.text().await.expect("a body");
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    body["id"].as_str().expect("an id").to_owned()
}

/// The states of one command, from the frames of a viewer.
fn states(frames: &[Frame], id: &str) -> Vec<String> {
    let received = frames.iter().filter(|frame| frame.event == "control");
    let received = received
        .map(Frame::json)
        .filter(|event| event["command_id"] == id);
    received
        .map(|event| event["state"].as_str().expect("a state").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_ends_command_and_run() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("cancelled").await;
    let mut stream = stack.api().watch(run.id, None).await;
    let script = "echo ready; while :; do sleep 0.05; done";
    let mut wrap = stack.wrap(run.id, &["sh", "-c", script]);
    wrap.wait_for_line("ready", WAIT_DEADLINE).await;

    // An agent's token permits publishing, not commands.
    let refused = send_command(
        &stack,
        run.id,
        Some(&run.token),
        json!({"command": "cancel"}),
    )
    .await;
    let detail = problem(refused, StatusCode::FORBIDDEN).await;
    assert!(detail.contains("runs:control"), "{detail}");
    let nowhere = send_command(&stack, Uuid::now_v7(), None, json!({"command": "cancel"})).await;
    problem(nowhere, StatusCode::NOT_FOUND).await;
    let nobody = json!({"command": "cancel", "variation": 1});
    problem(
        send_command(&stack, run.id, None, nobody).await,
        StatusCode::NOT_FOUND,
    )
    .await;

    // A wrapped command supports no input: its agent refuses that with a reason.
    let input = json!({"command": "input", "data": "y\n"});
    let input = accepted(send_command(&stack, run.id, None, input).await).await;
    let refused = loop {
        let frame = stream.next().await;
        if frame.event == "control" && frame.json()["state"] == "refused" {
            break frame.json();
        }
    };
    let why = refused["reason"].as_str().unwrap_or_default();
    assert!(why.contains("--tty"), "{refused}");
    assert_eq!(refused["command"], "input", "{refused}");
    assert!(wrap.try_wait().is_none(), "the command continues");

    let cancel = json!({"command": "cancel", "variation": 0});
    let cancel = accepted(send_command(&stack, run.id, None, cancel).await).await;
    assert_ne!(cancel, input);
    let ended = wrap.wait_exit(WAIT_DEADLINE).await;
    assert_eq!(shell_exit_code(ended), 143, "{}", wrap.logs());
    let frames = stream.read_until("end").await;
    assert_eq!(states(&frames, &cancel), ["requested", "received", "done"]);

    let events = stack.database.wait_sealed(run.id).await;
    let last: Value = serde_json::from_slice(&events.last().expect("events").body).expect("JSON");
    assert_eq!(
        (&last["status"], &last["signal"]),
        (&json!("cancelled"), &json!(15))
    );
    assert_eq!(stack.api().run(run.id).await["status"], "cancelled");
    // Six control events: refused requests wrote nothing.
    let received = events
        .iter()
        .filter(|event| event.kind == Kind::Control.number());
    let received: Vec<Value> = received
        .map(|event| serde_json::from_slice(&event.body).expect("JSON"))
        .collect();
    assert_eq!(received.len(), 6, "{received:?}");
    assert_eq!(
        received
            .iter()
            .filter(|event| event["command_id"] == *cancel)
            .count(),
        3
    );
    assert_eq!(received[3]["by"], "story", "{received:?}");

    let late = send_command(&stack, run.id, None, json!({"command": "cancel"})).await;
    problem(late, StatusCode::CONFLICT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stubborn_command_is_killed_after_grace_period() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("stubborn").await.id;
    let mut stream = stack.api().watch(run, None).await;
    let script = "trap 'echo not yet' TERM; echo ready; while :; do sleep 0.05; done";
    let id = run.to_string();
    let arguments = [
        "wrap",
        "--run",
        &id,
        "--cancel-grace",
        "1",
        "--",
        "sh",
        "-c",
        script,
    ];
    let mut wrap = stack.runcast(&arguments, &[]);
    wrap.wait_for_line("ready", WAIT_DEADLINE).await;
    let requested = Instant::now();
    let cancel =
        accepted(send_command(&stack, run, None, json!({"command": "cancel"})).await).await;
    let ended = wrap.wait_exit(WAIT_DEADLINE).await;
    assert_eq!(shell_exit_code(ended), 137, "{}", wrap.logs());
    assert!(
        requested.elapsed() >= Duration::from_secs(1),
        "the grace period passed"
    );
    let frames = stream.read_until("end").await;
    assert_eq!(states(&frames, &cancel), ["requested", "received", "done"]);

    // The TERM command is answered: the output was drained.
    let events = stack.database.wait_sealed(run).await;
    assert_eq!(text(&events, Kind::Output), b"ready\nnot yet\n");
    let last: Value = serde_json::from_slice(&events.last().expect("events").body).expect("JSON");
    assert_eq!(
        (&last["status"], &last["signal"]),
        (&json!("cancelled"), &json!(9))
    );
    assert_eq!(stack.api().run(run).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_command_expires_with_the_run() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("early").await.id;
    let cancel =
        accepted(send_command(&stack, run, None, json!({"command": "cancel"})).await).await;
    let mut wrap = stack.wrap(run, &["sleep", "60"]);
    let ended = wrap.wait_exit(WAIT_DEADLINE).await;
    assert_eq!(shell_exit_code(ended), 143, "{}", wrap.logs());
    let mut stream = stack.api().watch(run, None).await;
    let frames = stream.read_until("end").await;
    assert_eq!(states(&frames, &cancel), ["requested", "received", "done"]);
    stack.database.wait_sealed(run).await;

    // A second attempt at the same run does not receive the first one's command.
    let mut again = stack.wrap(run, &["sh", "-c", "sleep 0.5; exit 4"]);
    assert_eq!(
        shell_exit_code(again.wait_exit(WAIT_DEADLINE).await),
        4,
        "{}",
        again.logs()
    );
}
