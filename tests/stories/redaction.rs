//! What a run has printed is masked on request wherever it is stored, and its viewers are told.

use std::fs;
use std::path::Path;

use reqwest::Method;
use runcast_tests::api::{Api, send};
use runcast_tests::event_lines::output_line;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, eventually_within, within};
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::fixtures::ask;
use crate::archive::{AFTER_FAILURES, KEPT_QUERY, ROWS_QUERY, sealed_run, with_folder};

/// Requests a redaction and waits until it is finished.
async fn redact(api: &Api, run: Uuid, body: Value) -> Value {
    let path = format!("/v1/runs/{run}/redactions");
    let requested = ask(api, Method::POST, &path, &body, 202).await;
    eventually("the redaction is finished", async || {
        let list = api.get(&path).await;
        let mut all = list["redactions"].as_array().into_iter().flatten();
        let found = all.find(|one| one["id"] == requested["id"]).cloned();
        let found = found.filter(|one| one["finished_at"].is_string());
        found.ok_or_else(|| list.to_string())
    })
    .await
}

async fn text(api: &Api, run: Uuid) -> String {
    let path = format!("/v1/runs/{run}/text");
    let answer = send(api.request(Method::GET, &path)).await;
    answer.text().await.expect("text")
}

/// Looks for a text in all tables of text and bytes, and in all keys of Redis.
async fn assert_nowhere(stack: &Stack, secret: &str) {
    let columns = "SELECT format('SELECT count(*) FROM %I t WHERE position(convert_to(''{secret}'', ''UTF8'') IN %s) > 0',
                                 table_name, CASE data_type WHEN 'bytea' THEN format('%I', column_name)
                                                 ELSE format('convert_to(%I::text, ''UTF8'')', column_name) END)
                     FROM information_schema.columns
                    WHERE table_schema = 'public' AND data_type IN ('bytea', 'text', 'jsonb')
                      AND table_name NOT LIKE 'events\\_%'";
    for query in stack.database.query_strings(columns).await {
        let query = query.replace("{secret}", secret);
        assert_eq!(stack.database.query_number(&query).await, 0, "{query}");
    }
    let mut redis = stack.redis.connection().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut redis)
        .await
        .expect("keys");
    for key in keys {
        let dump: Option<Vec<u8>> = redis::cmd("DUMP")
            .arg(&key)
            .query_async(&mut redis)
            .await
            .expect("a dump");
        let dump = dump.unwrap_or_default();
        let found = memchr::memmem::find(&dump, secret.as_bytes());
        assert_eq!(found, None, "{key} holds it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_masked_everywhere_while_the_run_goes_on_and_is_watched() {
    let stack = Stack::start().await;
    let api = stack.api();
    let run = api.create_run("leaks hunter2secret").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let mut viewer = api.watch(run.id, None).await.with_heartbeats();
    let before = [
        output_line("the password is hunter2"),
        output_line("secret and more\n"),
        output_line("harmless\n"),
    ];
    publisher.publish(&before).await;
    while viewer.next().await.json()["text"] != "harmless\n" {}

    let done = redact(
        &api,
        run.id,
        json!({"text": "hunter2secret", "reason": "case 7"}),
    )
    .await;
    assert_eq!(done["events"], 2, "{done}");
    assert_eq!(
        (&done["what"], &done["reason"]),
        (&json!("text"), &json!("case 7"))
    );
    // The viewer is told, and one that comes later sees the masks, from the same gateway.
    let told = within(WAIT_DEADLINE, "the viewer is told", async {
        loop {
            let frame = viewer.next().await;
            if frame.event == "state" {
                return frame.json();
            }
        }
    })
    .await;
    assert_eq!(told["redacted"], true, "{told}");
    let masked =
        "the password is ******* and more\nharmless\n".replacen("*******", "*************", 1);
    assert_eq!(text(&api, run.id).await, masked);
    let mut late = api.watch(run.id, None).await;
    let mut seen = String::new();
    while !seen.ends_with("harmless\n") {
        seen += late.next().await.json()["text"]
            .as_str()
            .unwrap_or_default();
    }
    assert_eq!(seen, masked);
    assert_eq!(api.run(run.id).await["redacted"], true);
    assert_nowhere(&stack, "hunter2").await;

    // The run goes on, and its seal is as true as before.
    publisher.publish(&[output_line("goes on\n")]).await;
    while viewer.next().await.json()["text"] != "goes on\n" {}
    stack.database.wait_stored_events(run.id, 4).await;
    let log = api.get("/v1/audit?action=run.redacted").await;
    assert_eq!(log["entries"][0]["target"], run.id.to_string(), "{log}");
    assert_eq!(log["entries"][0]["details"]["reason"], "case 7", "{log}");
    assert!(!log.to_string().contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_run_is_masked_in_its_objects_and_stays_whole() {
    let (mut stack, folder) = with_folder().await;
    // The command line of the run holds it as well.
    let script =
        "seq 1000 1400; echo 'key: TOPSECRET17'; seq 1400 1800; echo TOPSECRET17 >&2; exit 3";
    let run = sealed_run(&mut stack, script).await;
    stack.start_service(Service::Worker).await;
    stack.database.wait_for_number(KEPT_QUERY, 1).await;
    stack.database.wait_for_number(ROWS_QUERY, 0).await;
    let api = stack.api();
    let before = (text(&api, run).await, api.run(run).await);
    assert!(before.0.contains("TOPSECRET17"));
    let objects = files(&folder);

    let mut command = stack.runcast(
        &["redact", &run.to_string(), "--text-file", "/dev/stdin"],
        &[],
    );
    // Without stdin there is no text, and nothing is requested.
    assert_ne!(command.wait_exit(WAIT_DEADLINE).await.code(), Some(0));
    let secret = stack.folder().join("secret");
    fs::write(&secret, "TOPSECRET17\n").expect("written");
    let file = secret.display().to_string();
    let mut command = stack.runcast(&["redact", &run.to_string(), "--text-file", &file], &[]);
    let status = command.wait_exit(WAIT_DEADLINE).await;
    assert!(status.success(), "{}", command.logs());
    assert!(
        command.logs().contains("masked 3 events"),
        "{}",
        command.logs()
    );

    let after = (text(&api, run).await, api.run(run).await);
    assert_eq!(after.0, before.0.replace("TOPSECRET17", "[redacted]*"));
    for field in ["events", "bytes", "last_id", "sealed", "status"] {
        assert_eq!(after.1[field], before.1[field], "{field}");
    }
    // The object with the text is gone from the archive, and another one is there.
    eventually("the old object is gone", async || {
        let now = files(&folder);
        let left: Vec<_> = now.iter().filter(|one| objects.contains(one)).collect();
        match (left.is_empty(), now.len()) {
            (true, 1) => Ok(()),
            _ => Err(format!("{now:?}")),
        }
    })
    .await;
    assert_nowhere(&stack, "TOPSECRET17").await;
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_events_are_masked_after_a_worker_died_and_not_on_hold() {
    let mut stack = Stack::without_services().await;
    for service in [Service::Gateway, Service::Persister] {
        stack.start_service(service).await;
    }
    let api = stack.api();
    let run = stack.api().create_run("whole").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let lines = ["first\n", "second secret\n", "third secret\n", "last\n"].map(output_line);
    publisher.publish(&lines).await;
    stack.database.wait_stored_events(run.id, 4).await;
    let ids: Vec<String> = stack
        .database
        .events(run.id)
        .await
        .iter()
        .map(|event| event.id.to_string())
        .collect();
    let path = format!("/v1/runs/{}/redactions", run.id);
    let body = json!({"from": ids[1], "to": ids[2]});
    let hold = format!("/v1/runs/{}/hold", run.id);
    ask(&api, Method::PUT, &hold, &json!({"reason": "case 8"}), 204).await;
    ask(&api, Method::POST, &path, &body, 409).await;
    ask(&api, Method::DELETE, &hold, &Value::Null, 204).await;
    for wrong in [
        json!({}),
        json!({"text": "abc"}),
        json!({"from": "x"}),
        json!({"text": "long enough", "what": 1}),
    ] {
        ask(&api, Method::POST, &path, &wrong, 400).await;
    }
    ask(&api, Method::POST, &path, &body, 202).await;
    // A worker dies while it masks, and another one does all of it.
    let barrier = stack
        .database
        .barrier(
            "redactions",
            "UPDATE ON redactions FOR EACH ROW",
            "NEW.finished_at IS NOT NULL",
        )
        .await;
    stack.start_service(Service::Worker).await;
    barrier.wait_reached().await;
    stack.kill(Service::Worker);
    barrier.terminate_waiters().await;
    stack.start_service(Service::Worker).await;
    let done = eventually_within(AFTER_FAILURES, "the redaction is finished", async || {
        let list = api.get(&path).await;
        let done = list["redactions"][0]["finished_at"].is_string();
        done.then(|| list.clone()).ok_or_else(|| list.to_string())
    })
    .await;
    assert_eq!(done["redactions"][0]["what"], "events", "{done}");
    let expected = "first\n[redacted]***\n[redacted]**\nlast\n";
    assert_eq!(text(&api, run.id).await, expected);
    assert_nowhere(&stack, "secret").await;
}
