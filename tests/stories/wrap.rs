//! `runcast wrap` is transparent: output, exit code and signals of the command pass unchanged.

use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use runcast_common::protocol::event::Kind;
use runcast_tests::database::text;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::{ProcessSpec, shell_exit_code};
use runcast_tests::programs::{self, free_port};
use runcast_tests::stack::Stack;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrap_returns_the_commands_exit_code() {
    let mut stack = Stack::start().await;
    let plain = stack.folder().join("plain-text");
    std::fs::write(&plain, "no program").expect("a file");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&plain, mode).expect("a file that cannot be run");
    let plain = plain.to_str().expect("UTF-8").to_owned();

    let cases: [(&[&str], i32, &str); 6] = [
        (&["true"], 0, "succeeded"),
        (&["sh", "-c", "exit 3"], 3, "failed"),
        (&["runcast-no-such-program"], 127, "failed"),
        (&[&plain], 126, "failed"),
        (&["sh", "-c", "kill -KILL $$"], 137, "failed"),
        (&["sh", "-c", "kill -TERM $$"], 143, "failed"),
    ];
    for (command, code, status) in cases {
        let run = stack.api().create_run("codes").await.id;
        let mut wrap = stack.wrap(run, command);
        let ended = wrap.wait_exit(WAIT_DEADLINE).await;
        assert_eq!(shell_exit_code(ended), code, "{command:?}\n{}", wrap.logs());
        let events = stack.database.wait_sealed(run).await;
        let last: Value =
            serde_json::from_slice(&events.last().expect("events").body).expect("JSON");
        assert_eq!(last["status"], status, "{last}");
        let state = stack.database.run(run).await;
        assert_eq!(state.status, status, "{command:?}");
        if code > 128 {
            assert_eq!(last["signal"], code - 128, "{last}");
        } else {
            assert_eq!(last["exit_code"], code, "{last}");
            assert_eq!(
                stack.api().run(run).await["variations"][0]["exit_code"],
                code
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_the_command() {
    let mut stack = Stack::start().await;
    let cases = [
        // The command decides what a signal means.
        (
            "trap 'echo bye; exit 7' TERM",
            Signal::SIGTERM,
            7,
            "ready\nbye\n",
        ),
        (
            "trap 'echo bye; exit 8' INT",
            Signal::SIGINT,
            8,
            "ready\nbye\n",
        ),
        (
            "trap 'echo bye; exit 9' HUP",
            Signal::SIGHUP,
            9,
            "ready\nbye\n",
        ),
        (":", Signal::SIGTERM, 143, "ready\n"),
    ];
    for (trap, signal, code, output) in cases {
        let run = stack.api().create_run("signals").await.id;
        let script = format!("{trap}; echo ready; while :; do sleep 0.05; done");
        // A shell cannot trap a signal that was ignored when it started, as SIGINT is for
        // background tests.
        let command = ["env", "--default-signal", "sh", "-c", &script];
        let mut wrap = stack.wrap(run, &command);
        wrap.wait_for_line("ready", WAIT_DEADLINE).await;
        wrap.signal(signal);
        let ended = wrap.wait_exit(WAIT_DEADLINE).await;
        assert_eq!(shell_exit_code(ended), code, "{trap}\n{}", wrap.logs());
        assert_eq!(wrap.stdout(), output.as_bytes());
        let events = stack.database.wait_sealed(run).await;
        assert_eq!(text(&events, Kind::Output), output.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_unchanged() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("bytes").await.id;
    // NUL, invalid UTF-8, carriage returns, colours, a cut character, and no final newline.
    let out = r"a\000b\n\377\376 raw\n50%%\r100%%\n\033[31mred\033[0m\n\303";
    let err = r"warning: \000\n\342\202\254 \342\202";
    let script = format!("printf '{out}'; printf '{err}' >&2");
    let mut wrap = stack.wrap(run, &["sh", "-c", &script]);
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);

    let out = b"a\0b\n\xff\xfe raw\n50%\r100%\n\x1b[31mred\x1b[0m\n\xc3";
    let err = b"warning: \0\n\xe2\x82\xac \xe2\x82";
    assert_eq!(wrap.stdout(), out);
    // It prints once where to watch, before the command starts; then stderr belongs to the command.
    let stderr = wrap.stderr();
    let hint = stderr.starts_with(b"runcast: watch at http://");
    let end = stderr
        .iter()
        .position(|&byte| byte == b'\n')
        .filter(|_| hint);
    assert_eq!(&stderr[end.map_or(0, |end| end + 1)..], err);
    let events = stack.database.wait_sealed(run).await;
    assert_eq!(text(&events, Kind::Output), out);
    assert_eq!(text(&events, Kind::Log), err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_line_is_delivered_before_its_newline() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("question").await.id;
    let response = stack.folder().join("answer");
    let script = format!(
        "printf 'name? '; until [ -e {} ]; do sleep 0.02; done; echo done",
        response.display()
    );
    let mut stream = stack.api().watch(run, None).await;
    let mut wrap = stack.wrap(run, &["sh", "-c", &script]);
    let mut seen = String::new();
    while !seen.ends_with("name? ") {
        let frame = stream.next().await;
        seen += frame.json()["text"].as_str().unwrap_or_default();
    }
    assert!(wrap.try_wait().is_none(), "the command waits for its input");
    std::fs::write(&response, "me").expect("a response");
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    stream.read_until("end").await;
    let events = stack.database.wait_sealed(run).await;
    assert_eq!(text(&events, Kind::Output), b"name? done\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrap_without_run_creates_one() {
    let mut stack = Stack::start().await;
    stack.api().create_run("made by hand, without labels").await;
    let labels = ["--label", "team=search", "--label", "stage=test=1"];
    let name = ["wrap", "--name", "created by wrap"];
    let arguments = [&name[..], &labels, &["--", "echo", "hello"]].concat();
    let mut wrap = stack.runcast(&arguments, &[]);
    assert_eq!(
        shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        wrap.logs()
    );
    assert_eq!(wrap.stdout(), b"hello\n");
    let run = eventually("the run is listed as succeeded", async || {
        let path = "/v1/runs?limit=10&label=team=search&label=stage=test%3D1";
        let runs = stack.api().get(path).await;
        let listed = runs["runs"].as_array().cloned().unwrap_or_default();
        assert!(listed.len() <= 1, "only what has the labels: {runs}");
        let found = listed.into_iter().find(|run| run["sealed"] == true);
        found.ok_or_else(|| runs.to_string())
    })
    .await;
    assert_eq!(run["name"], "created by wrap");
    let labels = serde_json::json!({"team": "search", "stage": "test=1"});
    assert_eq!(run["labels"], labels);
    let other = stack.api().get("/v1/runs?label=team=ads").await;
    assert_eq!(other["runs"], serde_json::json!([]));
    assert_eq!(run["status"], "succeeded");
    let id = run["id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("a run id");
    let events = stack.database.wait_sealed(id).await;
    assert_eq!(text(&events, Kind::Output), b"hello\n");
    // The first event tells what runs, and where.
    let first: Value = serde_json::from_slice(&events[0].body).expect("JSON");
    assert_eq!(first["status"], "running");
    assert_eq!(first["command"], serde_json::json!(["echo", "hello"]));
    assert!(
        first["host"].is_string() && first["pid"].is_u64(),
        "{first}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variations_of_a_run_are_separate() {
    let mut stack = Stack::start().await;
    let run = create_two(&stack).await;
    let mut processes = Vec::new();
    for variation in ["0", "1"] {
        let script = format!("echo from {variation}; exit {variation}");
        let arguments = [
            "wrap",
            "--run",
            &run,
            "--variation",
            variation,
            "--",
            "sh",
            "-c",
            &script,
        ];
        processes.push(stack.runcast(&arguments, &[]));
    }
    for (code, process) in processes.iter_mut().enumerate() {
        let ended = shell_exit_code(process.wait_exit(WAIT_DEADLINE).await);
        assert_eq!(usize::try_from(ended), Ok(code), "{}", process.logs());
    }
    stack
        .database
        .wait_sealed(run.parse().expect("a run id"))
        .await;
    let state = stack.api().get(&format!("/v1/runs/{run}")).await;
    assert_eq!(state["status"], "failed", "{state}");
    assert_eq!(state["variations"][0]["status"], "succeeded", "{state}");
    assert_eq!(state["variations"][1]["status"], "failed", "{state}");
    assert_eq!(state["variations"][1]["exit_code"], 1, "{state}");
}

async fn create_two(stack: &Stack) -> String {
    let request = stack.api().request(reqwest::Method::POST, "/v1/runs");
    let request = request.header("content-type", "application/json");
    let response = request
        .body(r#"{"name":"two","variations":2}"#)
        .send()
        .await;
    let body = response.expect("a response").text().await.expect("a body");
    let created: Value = serde_json::from_str(&body).expect("JSON");
    created["run"]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_runs_even_if_publishing_fails() {
    let stack = Stack::without_services().await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let script = ["wrap", "--", "sh", "-c", "echo out; exit 3"];
    let spec = ProcessSpec::new("alone", programs::runcast(), &script, stack.folder());
    let settings = [("RUNCAST_URL", nowhere.as_str()), ("RUNCAST_TOKEN", "none")];
    let mut wrap = spec.with_env(settings).start(stack.folder());
    assert_eq!(
        shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await),
        3,
        "{}",
        wrap.logs()
    );
    assert_eq!(wrap.stdout(), b"out\n");
    let output = String::from_utf8(wrap.stderr()).expect("text");
    assert!(
        output.contains("RUNCAST_URL"),
        "it names the cause: {output}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_follows_a_run_to_its_end() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("followed").await.id;
    let id = run.to_string();
    let mut tail = stack.runcast(&["tail", &id], &[]);
    let script = "for i in 1 2 3; do echo line $i; sleep 0.1; done";
    let mut wrap = stack.wrap(run, &["sh", "-c", script]);
    assert_eq!(shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await), 0);
    assert_eq!(
        shell_exit_code(tail.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        tail.logs()
    );
    assert_eq!(
        tail.stdout(),
        b"line 1\nline 2\nline 3\n",
        "{}",
        tail.logs()
    );

    // A viewer that comes late, after the first line, and requests raw events.
    let first = stack.database.wait_sealed(run).await;
    let first = first
        .iter()
        .find(|event| event.kind == Kind::Output.number());
    let after = first.expect("an event").id.to_string();
    let mut late = stack.runcast(
        &[
            "tail",
            &id,
            "--after",
            &after,
            "--channel",
            "output",
            "--json",
        ],
        &[],
    );
    assert_eq!(
        shell_exit_code(late.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        late.logs()
    );
    let output = String::from_utf8(late.stdout()).expect("UTF-8");
    let mut texts = Vec::new();
    for line in output.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        if event["kind"] == "output" {
            texts.push(event["text"].clone());
        }
    }
    assert_eq!(texts, ["line 2\n", "line 3\n"]);
}
