//! Deliveries: selected, signed, retried with the same id, and sent once by several workers.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use nix::sys::signal::Signal;
use reqwest::Method;
use runcast_common::presence::run_update::RunUpdate;
use runcast_tests::api::send;
use runcast_tests::event_lines::output_line;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, within};
use runcast_tests::process::ProcessSpec;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::Service;
use runcast_tests::webhook_receiver::{Reply, WebhookReceiver};
use serde_json::{Value, json};
use uuid::Uuid;

use super::fixtures::{add, listed, start_runs, wait_for_delivery, webhook, with_worker};

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
        errors[0].starts_with("500 ") && errors[0].ends_with("reply of the webhook receiver"),
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
async fn two_workers_send_once_and_slow_receiver_delays_none() {
    let stack = with_worker().await;
    let spec = ProcessSpec {
        name: "worker-2".to_owned(),
        ..stack.service_spec(Service::Worker)
    };
    let mut other = spec.start(stack.folder());
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
