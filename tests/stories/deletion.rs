//! Runs that are deleted on request leave nothing behind, and their viewers and agents are told;
//! runs on hold stay.

use std::fs;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use runcast_common::scripts::AppendOutcome;
use runcast_tests::api::{Api, problem, send};
use runcast_tests::event_lines::output_line;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, eventually_within, within};
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::fixtures::{AT_ONCE, ask, second_gateway, sign_in, user};
use crate::archive::{AFTER_FAILURES, JOBS_QUERY, KEPT_QUERY, sealed_run, with_folder};

/// Deletions of which something may be left.
const UNFINISHED_QUERY: &str = "SELECT count(*) FROM deleted_runs WHERE removed_at IS NULL";

/// Deletes a run; the response must have this status.
async fn delete(api: &Api, run: Uuid, expected: u16) -> Value {
    let path = format!("/v1/runs/{run}");
    ask(api, Method::DELETE, &path, &Value::Null, expected).await
}

/// Rows that name the run, in all tables but those that must.
async fn rows_of(stack: &Stack, run: Uuid) -> Vec<String> {
    let tables = "SELECT format('SELECT count(*) FROM %I WHERE %I = ''{run}''', table_name, column_name)
                    FROM information_schema.columns
                   WHERE table_schema = 'public' AND (column_name = 'run_id' OR (table_name, column_name) = ('runs', 'id'))
                     AND table_name NOT IN ('deleted_runs', 'events_readable')";
    let mut found = Vec::new();
    for query in stack.database.query_strings(tables).await {
        let query = query.replace("{run}", &run.to_string());
        if stack.database.query_number(&query).await > 0 {
            found.push(query);
        }
    }
    found
}

/// The keys that name the run.
async fn keys_of(stack: &Stack, run: Uuid) -> Vec<String> {
    let mut redis = stack.redis.connection().await;
    let mut keys = redis::cmd("KEYS");
    let keys = keys.arg(format!("*{run}*"));
    keys.query_async(&mut redis).await.expect("a list of keys")
}

async fn wait_for_text(stack: &Stack, run: Uuid, text: &str) {
    let path = format!("/v1/runs/{run}/text");
    eventually("the text is there", async || {
        let answer = send(stack.api().request(Method::GET, &path)).await;
        let received = answer.text().await.unwrap_or_default();
        received.contains(text).then_some(()).ok_or(received)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_run_is_gone_everywhere_while_its_agent_still_publishes() {
    let mut stack = Stack::start().await;
    let api = stack.api();
    let hook = json!({"url": "https://receiver.invalid/", "on": ["running"]});
    ask(&api, Method::POST, "/v1/webhooks", &hook, 201).await;
    let run = api.create_run("to be deleted").await.id;
    let script = "echo a secret; while echo more; do sleep 0.1; done";
    let mut wrap = stack.wrap(run, &["sh", "-c", script]);
    wait_for_text(&stack, run, "a secret").await;
    let deliveries =
        format!("SELECT least(count(*), 1) FROM webhook_deliveries WHERE run_id = '{run}'");
    stack.database.wait_for_number(&deliveries, 1).await;
    let mut letter = stack.redis.connection().await;
    let keys = stack.keys().run(run);
    let mut viewer = api.watch(run, None).await.with_heartbeats();
    viewer.read_until("output").await;

    let deleted = delete(&api, run, 202).await;
    assert_eq!(deleted["run"], run.to_string());
    // Viewers are told, and get nothing else afterwards.
    let frames = viewer.read_until("end").await;
    let [.., update, end] = &frames[..] else {
        panic!("an update and the end: {frames:?}")
    };
    assert_eq!(update.event, "state");
    assert_eq!(update.json()["status"], "deleted");
    assert_eq!(end.json()["status"], "deleted");
    // Its agent stops with a message, and its command goes on.
    eventually("the agent is told", async || {
        let errors = String::from_utf8(wrap.stderr()).expect("text");
        let told = errors.contains("the run was deleted");
        told.then_some(()).ok_or(errors)
    })
    .await;
    assert!(wrap.try_wait().is_none(), "the command goes on");
    wrap.kill();
    // All requests about it are answered 410.
    for (method, path) in [
        (Method::GET, ""),
        (Method::GET, "/events"),
        (Method::GET, "/text"),
        (Method::GET, "/search?q=secret"),
        (Method::GET, "/stream"),
        (Method::POST, "/publish"),
        (Method::POST, "/events"),
    ] {
        let path = format!("/v1/runs/{run}{path}");
        let detail = problem(send(api.request(method, &path)).await, StatusCode::GONE).await;
        assert!(detail.contains("was deleted"), "{path}: {detail}");
    }
    // Nothing is left but the mark.
    stack.database.wait_for_number(UNFINISHED_QUERY, 0).await;
    delete(&api, run, 200).await;
    assert_eq!(rows_of(&stack, run).await, [""; 0]);
    assert_eq!(keys_of(&stack, run).await, [keys.meta.as_str()]);
    let mut fields = redis::cmd("HKEYS");
    let fields: Vec<String> = fields
        .arg(&keys.meta)
        .query_async(&mut letter)
        .await
        .expect("fields");
    assert_eq!(fields, ["deleted"]);
    let list = api.get("/v1/runs").await;
    assert!(!list.to_string().contains(&run.to_string()), "{list}");
    // It is in the audit log, once, with the address.
    let log = api.get("/v1/audit?action=run.deleted").await;
    let [entry] = &log["entries"].as_array().expect("a list")[..] else {
        panic!("one entry: {log}")
    };
    assert_eq!(entry["target"], run.to_string());
    assert_eq!(entry["address"], "127.0.0.1");
    delete(&api, Uuid::now_v7(), 404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_role_deletes_and_holds_only_its_runs() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    let api = stack.api();
    let labelled = |team: &str| json!({"name": team, "labels": {"team": team}});
    let search = api.create(&labelled("search")).await.id;
    let ads = api.create(&labelled("ads")).await.id;
    let role = json!({
        "name": "cleaner", "permissions": ["runs:read", "runs:delete"], "labels": {"team": "search"},
    });
    ask(&api, Method::POST, "/v1/roles", &role, 201).await;
    user(&stack, "ada", &["cleaner"]).await;
    let ada = sign_in(&api, "ada").await;
    let (reason, nothing) = (json!({"reason": "case 7"}), Value::Null);
    for (run, held, deleted) in [(search, 204, 202), (ads, 403, 403)] {
        let (path, hold) = (format!("/v1/runs/{run}"), format!("/v1/runs/{run}/hold"));
        ada.send(Method::PUT, &hold, &reason, held).await;
        ada.send(Method::DELETE, &hold, &nothing, held).await;
        ada.send(Method::DELETE, &path, &nothing, deleted).await;
    }
    let list = api.get("/v1/runs").await;
    assert_eq!(list["runs"][0]["id"], ads.to_string(), "{list}");
    assert_eq!(list["runs"].as_array().map(Vec::len), Some(1), "{list}");
    // Operators may not.
    user(&stack, "bob", &["operator"]).await;
    let bob = sign_in(&api, "bob").await;
    let path = format!("/v1/runs/{ads}");
    bob.send(Method::DELETE, &path, &nothing, 403).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_of_all_gateways_are_told_at_once() {
    let stack = Stack::start().await;
    let api = stack.api();
    let other = second_gateway(&stack, &[]).await;
    let (run, kept) = (
        api.create_run("deleted").await,
        api.create_run("kept").await,
    );
    let mut publishers = Vec::new();
    for run in [&run, &kept] {
        let connection = run.publisher_connection().await;
        let mut publisher = Publisher::new(connection, stack.keys(), run.id);
        publisher.publish(&[output_line("a line")]).await;
        publishers.push(publisher);
    }
    stack.database.wait_stored_events(run.id, 1).await;
    let mut viewer = other.api.watch(run.id, None).await;
    viewer.read_until("ready").await;
    let path = format!("/v1/watch?run={}&run={}", run.id, kept.id);
    let mut several = send(other.api.request(Method::GET, &path)).await;
    let mut text = String::new();
    let mut read_to = async |what: &str| {
        within(WAIT_DEADLINE, what, async {
            while !text.contains(what) {
                let bytes = several.chunk().await.expect("read").expect("more");
                text += std::str::from_utf8(&bytes).expect("text");
            }
        })
        .await;
    };
    read_to("ready").await;
    let described = api.run(run.id).await;
    let after = described["last_id"].as_str().expect("an id");
    let poll = format!("/v1/runs/{}/events?after={after}&wait=50", run.id);
    let poll = tokio::spawn(send(other.api.request(Method::GET, &poll)));
    // The poll watches the run, and is woken by its deletion.
    let started = Instant::now();
    delete(&api, run.id, 202).await;
    let end = within(AT_ONCE, "the viewer is told", viewer.read_until("end")).await;
    assert_eq!(end.last().expect("an end").json()["status"], "deleted");
    read_to(r#""status":"deleted""#).await;
    let polled = within(WAIT_DEADLINE, "the poll is answered", poll).await;
    let polled = polled.expect("an answer").status();
    assert!(
        [StatusCode::OK, StatusCode::GONE].contains(&polled),
        "{polled}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(40),
        "the poll was woken"
    );
    // The other run goes on.
    publishers[1].publish(&[output_line("goes on")]).await;
    read_to("goes on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_postgres_lost_is_left_alone_and_not_read_without_end() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    let run = stack.api().create_run("lost by a restored database").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    publisher.publish(&[output_line("kept in Redis")]).await;
    stack.database.delete(run.id).await;
    stack.start_service(Service::Persister).await;
    let keys = stack.keys().run(run.id);
    let mut redis = stack.redis.connection().await;
    eventually("the run leaves the ready queue", async || {
        let mut length = redis::cmd("XLEN");
        let length = length.arg(&keys.ready).query_async(&mut redis).await;
        match length.expect("a length") {
            0_u64 => Ok(()),
            waiting => Err(format!("{waiting} wait")),
        }
    })
    .await;
    assert!(keys_of(&stack, run.id).await.contains(&keys.stream));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_after_a_deletion_is_refused_and_leaves_nothing() {
    let stack = Stack::start().await;
    let api = stack.api();
    let run = api.create_run("published directly").await;
    // With other rights than an agent, whose Redis user ends with the run.
    let connection = stack.redis.connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    publisher.publish(&[output_line("before")]).await;
    stack.database.wait_stored_events(run.id, 1).await;
    delete(&api, run.id, 202).await;
    let refused = publisher.try_append(&output_line("after")).await;
    assert_eq!(refused, AppendOutcome::Gone);
    stack.database.wait_for_number(UNFINISHED_QUERY, 0).await;
    // Redis forgets the mark, and an agent that has waited for long publishes to the run again: the
    // persister removes what it finds, and the agent is refused from then on.
    let meta = stack.keys().run(run.id).meta;
    let mut redis = stack.redis.connection().await;
    let mut forget = redis::cmd("DEL");
    forget
        .arg(&meta)
        .exec_async(&mut redis)
        .await
        .expect("deleted");
    let connection = stack.redis.connection().await;
    let mut late = Publisher::new(connection, stack.keys(), run.id);
    late.publish(&[output_line("much later")]).await;
    eventually("the run is gone again", async || {
        let keys = keys_of(&stack, run.id).await;
        let outcome = late.try_append(&output_line("and more")).await;
        match (outcome, keys == [meta.as_str()]) {
            (AppendOutcome::Gone, true) => Ok(()),
            state => Err(format!("{state:?}: {keys:?}")),
        }
    })
    .await;
    assert_eq!(rows_of(&stack, run.id).await, [""; 0]);
    assert!(
        !stack
            .logs(Service::Persister)
            .contains("leaving its stream alone"),
        "the persister knows that the run was deleted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_is_completed_after_its_gateway_and_worker_died() {
    let mut stack = Stack::without_services().await;
    for service in [Service::Gateway, Service::Persister] {
        stack.start_service(service).await;
    }
    let api = stack.api();
    let run = api.create_run("half deleted").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    publisher.publish(&[output_line("a line")]).await;
    stack.database.wait_stored_events(run.id, 1).await;
    // The gateway dies after its transaction, before it has told Redis: as if there were no Redis.
    let proxy = stack.proxy_redis().await;
    let through_proxy = stack.redis.url(proxy.port());
    stack.stop(Service::Gateway).await;
    stack.set(Service::Gateway, "REDIS_URL", through_proxy);
    stack.start_service(Service::Gateway).await;
    proxy.refuse();
    delete(&api, run.id, 202).await;
    stack.kill(Service::Gateway);
    proxy.forward();
    assert!(
        keys_of(&stack, run.id).await.len() > 1,
        "Redis was not told"
    );
    // A worker dies in the middle of the job.
    let barrier = stack
        .database
        .barrier("rows", "DELETE ON runs_gone", "true")
        .await;
    stack.start_service(Service::Worker).await;
    barrier.wait_reached().await;
    stack.kill(Service::Worker);
    barrier.terminate_waiters().await;
    assert_eq!(stack.database.query_number(UNFINISHED_QUERY).await, 1);
    stack.start_service(Service::Worker).await;
    eventually_within(AFTER_FAILURES, "the deletion is finished", async || {
        let left = stack.database.query_number(UNFINISHED_QUERY).await;
        (left == 0).then_some(()).ok_or(format!("{left} left"))
    })
    .await;
    assert_eq!(rows_of(&stack, run.id).await, [""; 0]);
    assert_eq!(keys_of(&stack, run.id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_run_is_deleted_with_its_object() {
    let (mut stack, folder) = with_folder().await;
    let run = sealed_run(&mut stack, "seq 1 500").await;
    let other = sealed_run(&mut stack, "seq 1 500").await;
    stack.start_service(Service::Worker).await;
    stack.database.wait_for_number(KEPT_QUERY, 2).await;
    let (run_text, name) = (run.to_string(), other.to_string());
    let mut command = stack.runcast(&["delete", &run_text], &[]);
    assert!(command.wait_exit(WAIT_DEADLINE).await.success());
    stack.database.wait_for_number(UNFINISHED_QUERY, 0).await;
    assert_eq!(rows_of(&stack, run).await, [""; 0]);
    let objects = objects_in(&folder);
    assert!(
        objects.iter().all(|path| path.contains(&name)),
        "{objects:?}"
    );
    assert_eq!(objects.len(), 1, "the other run keeps its object");
    wait_for_text(&stack, other, "500").await;
    let mut again = stack.runcast(&["delete", &run_text], &[]);
    assert!(again.wait_exit(WAIT_DEADLINE).await.success());
    assert!(
        again.logs().contains("nothing of it is left"),
        "{}",
        again.logs()
    );
    let unknown = Uuid::now_v7().to_string();
    let mut unknown = stack.runcast(&["delete", &unknown], &[]);
    assert_eq!(unknown.wait_exit(WAIT_DEADLINE).await.code(), Some(66));
}

/// All files below a folder.
fn objects_in(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(objects_in(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_on_hold_is_kept_by_deletion_and_retention() {
    let mut stack = Stack::without_services().await;
    // Three runs of one day, which are all too old.
    let insert = "SELECT make_events_partition('2020-01-05');
         INSERT INTO runs (id, name, created_by)
             SELECT uuid_v7_floor('2020-01-05 10:00+00'::timestamptz + number * interval '1 minute'), number, 'story'
               FROM generate_series(1, 3) AS number;
         INSERT INTO variations (run_id, variation) SELECT id, 0 FROM runs;
         INSERT INTO events SELECT id, 1, 1, id, 1, 0, 0, NULL, now(), now(), 'x' FROM runs;";
    stack.database.execute(insert).await;
    stack.start_service(Service::Gateway).await;
    let api = stack.api();
    let id = "SELECT id::text FROM runs WHERE name = '2'";
    let run: Uuid = stack.database.query_strings(id).await[0]
        .parse()
        .expect("an id");
    let hold = format!("/v1/runs/{run}/hold");
    ask(&api, Method::PUT, &hold, &json!({"reason": " "}), 400).await;
    ask(&api, Method::PUT, &hold, &json!({"reason": "case 7"}), 204).await;
    assert_eq!(api.run(run).await["hold"]["reason"], "case 7");
    let refused = api.request(Method::DELETE, &format!("/v1/runs/{run}"));
    let detail = problem(send(refused).await, StatusCode::CONFLICT).await;
    assert!(detail.contains("case 7"), "{detail}");
    // Only with the permission to delete.
    let operator = Api::new(api.base(), &stack.create_token("runs:control").await);
    ask(&operator, Method::DELETE, &hold, &Value::Null, 403).await;
    delete(&operator, run, 403).await;

    stack.set(Service::Worker, "RUNCAST_RETENTION", "30d");
    stack.start_service(Service::Worker).await;
    for (table, left) in [("runs", 1), ("events", 1), ("variations", 1)] {
        let count = format!("SELECT count(*) FROM {table}");
        stack.database.wait_for_number(&count, left).await;
    }
    stack.database.wait_for_number(JOBS_QUERY, 0).await;
    assert_eq!(api.run(run).await["events"], 0, "it is read as before");
    assert_eq!(stack.database.events(run).await.len(), 1);

    ask(&api, Method::DELETE, &hold, &Value::Null, 204).await;
    ask(&api, Method::DELETE, &hold, &Value::Null, 204).await;
    assert!(api.run(run).await["hold"].is_null());
    stack.stop(Service::Worker).await;
    // The hourly jobs run at once where another worker has taken the lease.
    stack.start_service(Service::Worker).await;
    let day = "SELECT count(*) FROM pg_class WHERE relname = 'events_20200105'";
    stack.database.wait_for_number(day, 0).await;
    let log = api.get("/v1/audit?action=run.").await;
    let entries = log["entries"].as_array().expect("a list");
    let actions: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["action"].as_str())
        .collect();
    assert_eq!(actions, ["run.released", "run.held"], "{log}");
}
