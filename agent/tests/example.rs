//! The example for programs that use the library, run unchanged against a real Redis and a stand-in
//! for the gateway.

mod support;

use std::path::PathBuf;
use std::process::Stdio;

use runcast_common::protocol::commands::SendCommand;
use runcast_common::protocol::event::Action;
use serde_json::{Value, json};
use support::gateway::{Gateway, json as answer};
use support::{PATIENCE, Run, Server, eventually};
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

/// The example, which cargo puts beside this test.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    let profile = test.parent().and_then(|deps| deps.parent());
    let program = profile.expect("a profile folder").join("examples/agent");
    assert!(
        program.is_file(),
        "{} is missing: `cargo build -p runcast-agent --examples`",
        program.display()
    );
    program
}

/// Runs it to its end, with a simulated persister. Returns the lines of its run.
async fn run(cancel_at: Option<&str>) -> Vec<Value> {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let reply = json!({
        "run": {"id": target.run}, "url": "http://page/#/runs/1",
        "redis": {"url": "redis://127.0.0.1:1", "prefix": target.prefix},
    });
    let gateway = Gateway::answering(vec![answer("201 Created", &reply.to_string())]);
    let mut agent = Command::new(example())
        .env("RUNCAST_URL", &gateway.url)
        .env("RUNCAST_TOKEN", "token-of-the-example")
        .env("REDIS_URL", server.url())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    if let Some(text) = cancel_at {
        eventually("it has said enough", async || {
            let events = run.events().await;
            events.iter().any(|event| holds(&event.line, text))
        })
        .await;
        let give = SendCommand {
            id: Uuid::now_v7(),
            action: Action::Cancel,
            by: "test",
            data: "",
            variations: &[0],
        };
        let given = async |connection: &mut _| give.call(&run.keys, connection).await;
        run.redis.run(run.keys.slot, given).await.expect("a reply");
    }
    let mut stored = Vec::new();
    eventually("it ends", async || {
        stored.extend(run.settle().await);
        agent.try_wait().expect("a child").is_some()
    })
    .await;
    let ended = timeout(PATIENCE, agent.wait()).await.expect("ended");
    assert!(ended.expect("a child").success());
    let lines = stored
        .iter()
        .map(|event| serde_json::from_slice(&event.line));
    lines.collect::<Result<_, _>>().expect("JSON")
}

fn holds(line: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(line).contains(text)
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

fn text(lines: &[Value]) -> String {
    let chunks = of_kind(lines, "output").into_iter();
    chunks.filter_map(|line| line["text"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_publishes_its_answers_its_log_and_their_cost() {
    let lines = run(None).await;
    let sentence = "Streams are rivers that remember where they have been.\n";
    assert_eq!(text(&lines), sentence.repeat(2));
    let chunks = of_kind(&lines, "output").len();
    assert!(
        chunks > 6,
        "words as they come, not whole answers: {chunks}"
    );
    let messages: Vec<_> = of_kind(&lines, "log")
        .iter()
        .map(|line| {
            (
                &line["message"],
                &line["fields"]["step"],
                &line["spans"][0]["name"],
            )
        })
        .collect();
    let asking = json!("asking the model");
    assert_eq!(
        messages,
        [
            (&asking, &json!(1), &json!("work")),
            (&asking, &json!(2), &json!("work")),
            (&json!("closed"), &json!(null), &json!("work")),
        ]
    );
    for metric in of_kind(&lines, "metric") {
        assert_eq!(
            (&metric["model"], &metric["values"]),
            (
                &json!("example-model"),
                &json!({"input_tokens": 120, "output_tokens": 40})
            )
        );
    }
    let states: Vec<_> = of_kind(&lines, "status")
        .iter()
        .map(|line| (&line["status"], line["events"].is_u64()))
        .collect();
    assert_eq!(
        states,
        [(&json!("running"), false), (&json!("succeeded"), true)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_cancelled_within_an_answer() {
    let lines = run(Some("rivers")).await;
    let said = text(&lines);
    assert!(said.starts_with("Streams are rivers "), "{said}");
    let states: Vec<_> = of_kind(&lines, "status")
        .iter()
        .map(|line| &line["status"])
        .collect();
    assert_eq!(states, ["running", "cancelled"]);
    let commands: Vec<_> = of_kind(&lines, "control")
        .iter()
        .map(|line| &line["state"])
        .collect();
    assert_eq!(commands, ["received", "done"]);
}
