//! Management of webhooks: abandoned deliveries, gone receivers, refused addresses, and the API.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use runcast_tests::api::{problem, send};
use runcast_tests::stack::{Service, Stack};
use runcast_tests::webhook_receiver::{Reply, WebhookReceiver};
use serde_json::{Value, json};
use uuid::Uuid;

use super::fixtures::{add, start_runs, wait_for_delivery, webhook, with_worker};

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
