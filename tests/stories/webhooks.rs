//! Webhooks: which are sent, which are retried, and which addresses are never connected to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use runcast_common::presence::run_update::RunUpdate;
use runcast_tests::api::{problem, send};
use runcast_tests::event_lines::output_line;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, within};
use runcast_tests::process::ProcessSpec;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use runcast_tests::webhook_receiver::{Reply, WebhookReceiver};
use serde_json::{Value, json};
use uuid::Uuid;

/// The output of `runcastd webhook` with these arguments, and whether it succeeded.
async fn webhook(stack: &Stack, arguments: &[&str]) -> (bool, String) {
    let arguments = [&["webhook"], arguments].concat();
    let own = stack.service_spec(Service::Worker).environment;
    let recipe = stack.operator_spec(&arguments).with_env(own);
    let mut process = recipe.start(stack.folder());
    let status = process.wait_exit(WAIT_DEADLINE).await;
    let output = [process.stdout(), process.stderr()].concat();
    (
        status.success(),
        String::from_utf8(output).expect("the output is text"),
    )
}

/// Creates a webhook; returns its id and secret.
async fn add(stack: &Stack, arguments: &[&str]) -> (String, String) {
    let arguments = [&["add"], arguments].concat();
    let (made, output) = webhook(stack, &arguments).await;
    assert!(made, "{output}");
    let mut lines = output.lines().map(str::to_owned);
    let both = lines.next().zip(lines.next());
    both.expect("an id and a secret")
}

async fn listed(stack: &Stack, arguments: &[&str]) -> Vec<Value> {
    let arguments = [arguments, &["--json"]].concat();
    let (listed, output) = webhook(stack, &arguments).await;
    assert!(listed, "{output}");
    let lines = output.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Waits until the only delivery is in this state, and returns it.
async fn wait_for_delivery(stack: &Stack, state: &str) -> Value {
    eventually(&format!("the delivery is {state}"), async || {
        let list = listed(stack, &["deliveries"]).await;
        match &list[..] {
            [one] if one["state"] == state => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// A stack with a worker that may send to this machine and retries quickly.
async fn with_worker() -> Stack {
    let mut stack = Stack::without_services().await;
    for (name, value) in [
        ("RUNCAST_WEBHOOK_ALLOW", "127.0.0.0/8"),
        ("RUNCAST_WEBHOOK_TIMEOUT", "1s"),
        ("RUNCAST_WEBHOOK_FIRST_RETRY", "200ms"),
    ] {
        stack.set(Service::Worker, name, value);
    }
    stack.start_service(Service::Worker).await;
    stack
}

/// Starts this many runs, each in a transaction of its own.
async fn start_runs(stack: &Stack, count: usize) {
    let insert = format!(
        "INSERT INTO runs (id, name, created_by)
         SELECT gen_random_uuid(), 'story', 'story' FROM generate_series(1, {count});
         DO $$ DECLARE run uuid; BEGIN
             FOR run IN SELECT id FROM runs WHERE status = 'pending' LOOP
                 UPDATE runs SET status = 'running' WHERE id = run;
                 COMMIT;
             END LOOP;
         END $$;"
    );
    for statement in insert.splitn(2, ';') {
        stack.database.execute(statement).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiver_gets_notifications_of_selected_runs() {
    let mut stack = with_worker().await;
    stack.start_service(Service::Gateway).await;
    stack.start_service(Service::Persister).await;
    let receiver = WebhookReceiver::start().await;
    let url = receiver.url();
    let on = ["--on", "running", "--on", "failed", "--on", "sealed"];
    let arguments = [&[url.as_str()], &on[..], &["--label", "team=search"]].concat();
    let (id, secret) = add(&stack, &arguments).await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    let (_, list) = webhook(&stack, &["list"]).await;
    assert!(list.contains(&id) && !list.contains(&secret), "{list}");

    let create = async |team: &str| -> Uuid {
        let request = stack.api().request(Method::POST, "/v1/runs");
        let body = json!({"name": "told", "labels": {"team": team, "more": "x"}});
        let created: Value = send(request.body(body.to_string()))
            .await
            .json()
            .await
            .expect("JSON");
        let id = created["run"]["id"].as_str().and_then(|id| id.parse().ok());
        id.expect("a run id")
    };
    let (ours, other) = (create("search").await, create("ads").await);
    for run in [other, ours] {
        let mut wrap = stack.wrap(run, &["sh", "-c", "echo here; exit 3"]);
        wrap.wait_exit(WAIT_DEADLINE).await;
        stack.database.wait_sealed(run).await;
    }
    let reported = eventually("failed and sealed are notified", async || {
        let received = receiver.received();
        let reported: BTreeMap<String, Value> = received
            .iter()
            .map(|one| {
                (
                    one.json()["type"].as_str().expect("a type").to_owned(),
                    one.json(),
                )
            })
            .collect();
        let both = reported.contains_key("run.failed") && reported.contains_key("run.sealed");
        if both {
            Ok(reported)
        } else {
            Err(format!("{reported:?}"))
        }
    })
    .await;
    let failed = &reported["run.failed"]["data"];
    assert_eq!(failed["run"], ours.to_string());
    assert_eq!(failed["failure"]["exit_code"], 3, "{failed}");
    assert_eq!(failed["labels"]["team"], "search");
    assert_eq!(reported["run.sealed"]["data"]["sealed"], true);
    let ids: BTreeSet<String> = receiver
        .received()
        .iter()
        .map(|one| {
            one.verify(&secret);
            assert_eq!(
                one.json()["data"]["run"],
                ours.to_string(),
                "no other run is notified"
            );
            one.id()
        })
        .collect();
    assert_eq!(ids.len(), receiver.received().len(), "each once");

    let (tested, output) = webhook(&stack, &["test", &id]).await;
    assert!(tested && output.contains("delivered in"), "{output}");
    let (removed, _) = webhook(&stack, &["remove", &id]).await;
    assert!(!removed, "not without --yes");
    let (removed, _) = webhook(&stack, &["remove", &id, "--yes"]).await;
    assert!(removed);
    assert_eq!(listed(&stack, &["list"]).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_run_reports_missing_events() {
    let mut stack = with_worker().await;
    stack.start_service(Service::Gateway).await;
    stack.start_service(Service::Persister).await;
    let receiver = WebhookReceiver::start().await;
    add(
        &stack,
        &[&receiver.url(), "--on", "incomplete", "--on", "sealed"],
    )
    .await;
    let run = stack.api().create_run("short").await;
    let client = redis::Client::open(stack.redis.url(stack.redis.port())).expect("a URL");
    let mut updates = client.get_async_pubsub().await.expect("a subscription");
    let channel = stack.keys().updates();
    updates.subscribe(channel).await.expect("a subscription");

    let mut viewer = stack.api().watch(run.id, None).await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    // It has counted five events, but only one arrives.
    let end = json!({"kind": "status", "variation": 0, "time": 1, "status": "succeeded",
        "events": 5, "bytes": 100, "checksum": "crc32c:00000000"});
    let lines = [output_line("one of five\n"), end.to_string().into_bytes()];
    publisher.publish(&lines).await;
    // At once, to all three subscribers.
    let reported = viewer.read_until("end").await;
    let reported = reported.last().expect("the end").json();
    assert_eq!(
        (&reported["missing"], &reported["sealed"]),
        (&json!(4), &json!(false)),
        "{reported}"
    );
    let message = within(WAIT_DEADLINE, "an update", updates.on_message().next()).await;
    let message: String = message.expect("a message").get_payload().expect("text");
    let update: Vec<RunUpdate> = serde_json::from_str(&message).expect("updates");
    assert_eq!((update[0].run, update[0].missing), (run.id, 4), "{message}");
    assert!(update[0].ended && !update[0].sealed, "{message}");
    let received = receiver.wait_for_requests(1).await;
    let reported = received[0].json();
    assert_eq!(reported["type"], "run.incomplete");
    assert_eq!(reported["data"]["missing"], 4, "{reported}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_delivery_is_retried_with_the_same_id() {
    let stack = with_worker().await;
    let mut receiver = WebhookReceiver::start().await;
    let (_, secret) = add(&stack, &[&receiver.url(), "--on", "running"]).await;
    receiver.reply_next(&[Reply::Status(500), Reply::Redirect, Reply::Never]);
    start_runs(&stack, 1).await;
    receiver.wait_for_requests(3).await;
    receiver.stop();
    let refused = "SELECT count(*) FROM webhook_attempts WHERE error LIKE '%refused%'";
    eventually("a connection is refused", async || {
        let count = stack.database.query_number(refused).await;
        (count > 0).then_some(()).ok_or_else(|| "none".to_owned())
    })
    .await;
    receiver.restart().await;
    let delivered = wait_for_delivery(&stack, "delivered").await;
    assert_eq!(delivered["status"], 204, "{delivered}");
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    for one in &received {
        one.verify(&secret);
        assert_eq!((one.id(), &one.body), (received[0].id(), &received[0].body));
    }
    let id = delivered["id"].as_str().expect("an id");
    let (_, displayed) = webhook(&stack, &["show", id]).await;
    assert!(
        displayed.contains("run.running") && displayed.contains("no answer in time"),
        "{displayed}"
    );
    let errors = "SELECT coalesce(error, 'none') FROM webhook_attempts ORDER BY number";
    let errors = stack.database.query_strings(errors).await;
    assert!(
        errors[0].starts_with("500 ") && errors[0].ends_with("said the receiver"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("redirects are not followed"),
        "{errors:?}"
    );
    assert_eq!(errors[2], "no answer in time");
    assert_eq!(errors.last().map(String::as_str), Some("none"));
    // The receiver works again: deliveries are no longer held back.
    let [hook] = &listed(&stack, &["list"]).await[..] else {
        panic!("one webhook")
    };
    assert_eq!(
        (&hook["failures"], &hook["held_until"]),
        (&json!(0), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_killed_before_commit_sends_again() {
    let mut stack = with_worker().await;
    let receiver = WebhookReceiver::start().await;
    add(&stack, &[&receiver.url(), "--on", "running"]).await;
    // The receiver got it, but the worker never learns that.
    receiver.reply_next(&[Reply::Never]);
    start_runs(&stack, 1).await;
    let first = receiver.wait_for_requests(1).await.remove(0);
    stack.kill(Service::Worker);
    stack.start_service(Service::Worker).await;
    let again = receiver.wait_for_requests(2).await.remove(1);
    assert_eq!((first.id(), first.body), (again.id(), again.body));
    wait_for_delivery(&stack, "delivered").await;
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_delivery_waits_for_an_operator() {
    let mut stack = with_worker().await;
    stack.stop(Service::Worker).await;
    stack.set(Service::Worker, "RUNCAST_WEBHOOK_GIVE_UP", "500ms");
    stack.start_service(Service::Worker).await;
    let receiver = WebhookReceiver::start().await;
    receiver.reply_default(Reply::Status(503));
    let (id, _) = add(&stack, &[&receiver.url(), "--on", "running"]).await;
    start_runs(&stack, 1).await;
    let dead = wait_for_delivery(&stack, "dead").await;
    assert_eq!(dead["due_at"], Value::Null, "{dead}");
    let tried = receiver.received();
    assert!(tried.len() > 1, "{}", tried.len());
    let (_, table) = webhook(&stack, &["deliveries", &id, "--state", "dead"]).await;
    assert!(
        table.contains("503") && table.contains("run.running"),
        "{table}"
    );

    receiver.reply_default(Reply::Status(200));
    let delivery = dead["id"].as_str().expect("an id");
    let (replayed, output) = webhook(&stack, &["replay", delivery]).await;
    assert!(replayed, "{output}");
    wait_for_delivery(&stack, "delivered").await;
    let last = receiver.received().pop().expect("a request");
    assert_eq!(last.id(), tried[0].id());
    let (replayed, output) = webhook(&stack, &["replay", &Uuid::now_v7().to_string()]).await;
    assert!(
        !replayed && output.contains("there is no delivery"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_send_once_and_slow_receiver_delays_none() {
    let stack = with_worker().await;
    let recipe = ProcessSpec {
        name: "worker-2".to_owned(),
        ..stack.service_spec(Service::Worker)
    };
    let mut other = recipe.start(stack.folder());
    other
        .wait_for_line("Runcast worker is ready", WAIT_DEADLINE)
        .await;
    let (quick, slow) = (
        WebhookReceiver::start().await,
        WebhookReceiver::start().await,
    );
    slow.reply_default(Reply::Never);
    add(&stack, &[&slow.url(), "--on", "running"]).await;
    let (id, _) = add(&stack, &[&quick.url(), "--on", "running"]).await;
    start_runs(&stack, 100).await;
    let delivered = format!(
        "SELECT count(*) FROM webhook_deliveries WHERE webhook = '{id}' AND state = 'delivered'"
    );
    stack.database.wait_for_number(&delivered, 100).await;
    let received = quick.received();
    let ids: BTreeSet<String> = received.iter().map(|one| one.id()).collect();
    assert_eq!((received.len(), ids.len()), (100, 100));
    // A few deliveries to the slow one are in progress, not all, and it is throttled.
    eventually("the slow receiver is throttled", async || {
        let list = listed(&stack, &["list"]).await;
        let contained = list.iter().any(|one| !one["held_until"].is_null());
        contained.then_some(()).ok_or_else(|| format!("{list:?}"))
    })
    .await;
    let tried = slow.received().len();
    assert!(tried < 50, "{tried} of 100");
    other.signal(Signal::SIGTERM);
    assert!(other.wait_exit(WAIT_DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gone_receiver_is_disabled() {
    let stack = with_worker().await;
    let receiver = WebhookReceiver::start().await;
    receiver.reply_default(Reply::Status(410));
    let (id, _) = add(&stack, &[&receiver.url(), "--on", "running"]).await;
    start_runs(&stack, 1).await;
    wait_for_delivery(&stack, "dead").await;
    let (_, list) = webhook(&stack, &["list"]).await;
    assert!(
        list.contains("disabled") && list.contains("410 Gone"),
        "{list}"
    );
    start_runs(&stack, 1).await;
    let (enabled, _) = webhook(&stack, &["enable", &id]).await;
    assert!(enabled);
    receiver.reply_default(Reply::Status(200));
    let (tested, output) = webhook(&stack, &["test", &id]).await;
    assert!(tested, "{output}");
    assert_eq!(
        receiver.received().len(),
        2,
        "changes while it was disabled are not notified"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_addresses_are_refused_unless_allowed() {
    let mut stack = Stack::without_services().await;
    stack.set(Service::Worker, "RUNCAST_WEBHOOK_FIRST_RETRY", "200ms");
    stack.start_service(Service::Worker).await;
    let receiver = WebhookReceiver::start().await;
    let port = receiver.port();
    for (url, why) in [
        (receiver.url(), "127.0.0.1 is not a public address"),
        (
            format!("https://127.1:{port}/"),
            "127.0.0.1 is not a public address",
        ),
        (
            "https://[::ffff:169.254.169.254]/".into(),
            "is not a public address",
        ),
        ("http://example.com/".into(), "use https"),
        (
            "https://user:secret@example.com/".into(),
            "user name or password",
        ),
    ] {
        let (made, output) = webhook(&stack, &["add", &url]).await;
        assert!(!made && output.contains(why), "{url}: {output}");
    }
    // A host name reveals nothing before it is resolved.
    let (id, _) = add(&stack, &[&format!("https://localhost:{port}/")]).await;
    let (tested, output) = webhook(&stack, &["test", &id]).await;
    assert!(
        !tested && output.contains("is not a public address"),
        "{output}"
    );
    // A URL from when it was allowed.
    let smuggle = format!("UPDATE webhooks SET url = '{}'", receiver.url());
    stack.database.execute(&smuggle).await;
    let (tested, output) = webhook(&stack, &["test", &id]).await;
    assert!(
        !tested && output.contains("is not a public address"),
        "{output}"
    );
    // The receiver was listening.
    let reached = tokio::time::timeout(
        Duration::from_secs(5),
        tokio::net::TcpStream::connect(("127.0.0.1", port)),
    );
    assert!(reached.await.is_ok_and(|reached| reached.is_ok()));
    assert_eq!(receiver.received().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrator_manages_webhooks_over_http() {
    let mut stack = with_worker().await;
    stack.set(Service::Gateway, "RUNCAST_WEBHOOK_ALLOW", "127.0.0.0/8");
    stack.start_service(Service::Gateway).await;
    let receiver = WebhookReceiver::start().await;
    let api = stack.api();
    let create = async |body: Value| {
        let request = api.request(Method::POST, "/v1/webhooks");
        send(request.body(body.to_string())).await
    };
    for (body, why) in [
        (
            json!({"url": receiver.url(), "on": ["weather"]}),
            "running, succeeded",
        ),
        (
            json!({"url": receiver.url(), "on": []}),
            "running, succeeded",
        ),
        (
            json!({"url": "https://10.0.0.1/", "on": ["failed"]}),
            "not a public address",
        ),
        (
            json!({"url": receiver.url(), "on": ["failed"], "labels": {"team": 7}}),
            "team",
        ),
    ] {
        let detail = problem(create(body).await, StatusCode::BAD_REQUEST).await;
        assert!(detail.contains(why), "{detail}");
    }
    let created = create(json!({"url": receiver.url(), "on": ["failed"]})).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let created: Value = created.json().await.expect("JSON");
    let secret = created["secret"].as_str().expect("a secret");
    let id = created["id"].as_str().expect("an id");
    let list = api.get("/v1/webhooks").await;
    assert_eq!(list["webhooks"][0]["id"], id);
    assert!(!list.to_string().contains(secret), "{list}");

    let tested = send(api.request(Method::POST, &format!("/v1/webhooks/{id}/test"))).await;
    assert_eq!(tested.status(), StatusCode::ACCEPTED);
    receiver.wait_for_requests(1).await[0].verify(secret);
    wait_for_delivery(&stack, "delivered").await;
    let path = format!("/v1/webhooks/deliveries?webhook={id}&state=delivered");
    let log = api.get(&path).await;
    let delivery = log["deliveries"][0]["id"].as_str().expect("a delivery");
    let one = api
        .get(&format!("/v1/webhooks/deliveries/{delivery}"))
        .await;
    assert_eq!(one["attempts"][0]["status"], 204, "{one}");
    let replay = format!("/v1/webhooks/deliveries/{delivery}/replay");
    let replayed = send(api.request(Method::POST, &replay)).await;
    assert_eq!(replayed.status(), StatusCode::ACCEPTED);
    let received = receiver.wait_for_requests(2).await;
    assert_eq!(received[0].id(), received[1].id());

    let run = api.create_run("agent").await;
    let theirs = api.anonymous(Method::GET, "/v1/webhooks");
    let refused = send(theirs.bearer_auth(&run.token)).await;
    problem(refused, StatusCode::FORBIDDEN).await;
    let path = format!("/v1/webhooks/{id}");
    let removed = send(api.request(Method::DELETE, &path)).await;
    assert_eq!(removed.status(), StatusCode::NO_CONTENT);
    let again = send(api.request(Method::DELETE, &path)).await;
    problem(again, StatusCode::NOT_FOUND).await;
}
