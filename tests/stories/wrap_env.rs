//! What `runcast wrap` hands on: the command gets a token of its run alone, with which a program in
//! it joins the run; and a wrap inside of a wrap publishes nothing twice.

use reqwest::{Method, StatusCode};
use runcast_common::protocol::event::Kind;
use runcast_tests::api::{Api, send};
use runcast_tests::database::{text, variation_events};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::{Process, shell_exit_code};
use runcast_tests::programs;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use uuid::Uuid;

/// The value of a variable in the output of `env`.
fn variable(output: &str, name: &str) -> Option<String> {
    let mut lines = output.lines();
    lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

async fn succeed(process: &mut Process) -> (String, String) {
    let code = shell_exit_code(process.wait_exit(WAIT_DEADLINE).await);
    assert_eq!(code, 0, "{}", process.logs());
    let [out, err] = [process.stdout(), process.stderr()];
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(out), text(err))
}

async fn status(api: &Api, token: &str, method: Method, path: &str) -> StatusCode {
    let request = api.anonymous(method, path).bearer_auth(token);
    send(request).await.status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_gets_a_token_of_its_run_alone() {
    let mut stack = Stack::start().await;
    let api = stack.api();
    let redis = stack.redis.publisher_url(stack.redis.port());
    let existing = api.create_run("joined").await;
    let join = ["--run".to_owned(), existing.id.to_string()];
    for (options, tty) in [(vec![], false), (join.to_vec(), false), (vec![], true)] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let tty: &[&str] = if tty { &["--tty"] } else { &[] };
        let arguments = [&["wrap"], &options[..], tty, &["--", "env"]].concat();
        let mut wrap = stack.runcast(&arguments, &[("REDIS_URL", &redis)]);
        let (out, err) = succeed(&mut wrap).await;
        assert!(!out.contains(stack.token()), "{out}");
        assert_eq!(variable(&out, "REDIS_URL"), None, "{out}");
        assert!(err.contains("--keep-env REDIS_URL"), "{err}");
        assert_eq!(variable(&out, "RUNCAST_VARIATION").as_deref(), Some("0"));
        let url = variable(&out, "RUNCAST_URL").expect("an address");
        assert_eq!(url.trim_end_matches('/'), api.base());
        let run: Uuid = variable(&out, "RUNCAST_RUN")
            .expect("a run")
            .parse()
            .expect("an id");
        let token = variable(&out, "RUNCAST_TOKEN").expect("a token");
        if !options.is_empty() {
            assert_eq!((run, &token), (existing.id, &existing.token));
        }
        // It joins this run, and no other.
        let publish = |run: Uuid| format!("/v1/runs/{run}/publish");
        let own = status(&api, &token, Method::POST, &publish(run)).await;
        assert_eq!(own, StatusCode::OK);
        let other = api.create_run("other").await.id;
        let other = status(&api, &token, Method::POST, &publish(other)).await;
        assert_eq!(other, StatusCode::FORBIDDEN);
        // Viewers see no token.
        let events = stack.database.wait_sealed(run).await;
        let stored = String::from_utf8(text(&events, Kind::Output)).expect("text");
        assert!(stored.contains("RUNCAST_TOKEN=[redacted]"), "{stored}");
        let read = api.request(Method::GET, &format!("/v1/runs/{run}/text"));
        let shown = send(read).await.text().await.expect("text");
        assert!(shown.contains("RUNCAST_TOKEN=[redacted]"), "{shown}");
        for secret in [stack.token(), &token] {
            assert!(
                !shown.contains(secret) && !stored.contains(secret),
                "{shown}"
            );
        }
    }
    let arguments = ["wrap", "--no-token", "--keep-env", "REDIS_URL", "--", "env"];
    let mut wrap = stack.runcast(&arguments, &[("REDIS_URL", &redis)]);
    let (out, err) = succeed(&mut wrap).await;
    assert_eq!(variable(&out, "RUNCAST_TOKEN"), None, "{out}");
    assert_eq!(variable(&out, "REDIS_URL").as_deref(), Some(redis.as_str()));
    assert!(!err.contains("REDIS_URL"), "{err}");
    assert!(variable(&out, "RUNCAST_RUN").is_some(), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrap_within_a_wrap_publishes_nothing_twice() {
    let mut stack = Stack::start().await;
    let inner = programs::runcast().display().to_string();
    let run = stack.api().create_run_of("nested", 2).await.id;
    let mut wrap = stack.wrap(run, &[&inner, "wrap", "--", "echo", "hello"]);
    let (out, err) = succeed(&mut wrap).await;
    assert_eq!(out, "hello\n");
    assert_eq!(err.matches("watch at").count(), 1, "{err}");
    assert_eq!(
        err.matches("nothing is published twice").count(),
        1,
        "{err}"
    );
    // Another variation of the run is published by the inner one, with the token of the run.
    let named = [&inner, "wrap", "--variation", "1", "--", "echo", "other"];
    let mut wrap = stack.wrap(run, &named);
    let (out, err) = succeed(&mut wrap).await;
    assert_eq!(out, "other\n");
    assert_eq!(err.matches("watch at").count(), 2, "{err}");
    let events = stack.database.wait_sealed(run).await;
    let output = |variation| text(&variation_events(&events, variation), Kind::Output);
    assert_eq!(output(0), b"hello\nother\n");
    assert_eq!(output(1), b"other\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_of_the_environment_is_joined() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("by its environment").await.id;
    let id = run.to_string();
    let mut wrap = stack.runcast(&["wrap", "--", "echo", "joined"], &[("RUNCAST_RUN", &id)]);
    succeed(&mut wrap).await;
    let events = stack.database.wait_sealed(run).await;
    assert_eq!(text(&events, Kind::Output), b"joined\n");
    let name = ["wrap", "--name", "a new one", "--", "echo", "new"];
    let mut wrap = stack.runcast(&name, &[("RUNCAST_RUN", &id)]);
    succeed(&mut wrap).await;
    eventually("the new run is sealed", async || {
        let runs = stack.api().get("/v1/runs?limit=1").await;
        let newest = &runs["runs"][0];
        let is_new = newest["name"] == "a new one" && newest["sealed"] == json!(true);
        is_new.then_some(()).ok_or_else(|| runs.to_string())
    })
    .await;
    let mut wrap = stack.runcast(&["wrap", "--", "echo", "anyway"], &[("RUNCAST_RUN", "x")]);
    let (out, err) = succeed(&mut wrap).await;
    assert_eq!(out, "anyway\n");
    assert!(err.contains("RUNCAST_RUN is not valid"), "{err}");
    let state: Value = stack.api().run(run).await;
    assert_eq!(state["status"], "succeeded", "{state}");
}
