//! Secrets appear in no log and in no response except the one that creates them, even with all
//! logging enabled and many failures.

use reqwest::header::COOKIE;
use reqwest::{Method, RequestBuilder, StatusCode};
use runcast_tests::api::{Api, CreatedRun, send};
use runcast_tests::eventually::eventually;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::access::fixtures::{
    Browser, USER_PASSWORD, ask, operator, sign_in, sign_in_with, user,
};
use super::super::access::tickets::{TICKETS_PATH, by_ticket, ticket, with_ticket};

/// A password that is wrong for all users, and one that a user changes to.
const WRONG_PASSWORD: &str = "wrong-horse-password";
const NEW_PASSWORD: &str = "another-horse-password";

/// Secrets with their descriptions.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn keep(&mut self, what: &str, secret: &str) {
        assert!(secret.len() >= 12, "{what}: {secret}");
        self.0.push((what.to_owned(), secret.to_owned()));
    }

    /// The secrets that a text contains.
    fn within(&self, text: &str) -> Vec<&str> {
        let contained = self.0.iter().filter(|(_, secret)| text.contains(secret));
        contained.map(|(what, _)| what.as_str()).collect()
    }
}

/// Sends a request, and checks that the response contains none of them.
async fn status(secrets: &Secrets, request: RequestBuilder) -> StatusCode {
    let response = send(request).await;
    let status = response.status();
    let headers = format!("{:?}", response.headers());
    let text = headers + &response.text().await.expect("a body");
    assert_eq!(secrets.within(&text), [""; 0], "{status} {text}");
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_appear_in_no_log_or_response() {
    let mut stack = Stack::without_services().await;
    for service in Service::ALL {
        stack.set(service, "RUNCAST_LOG", "debug");
    }
    let chaos = stack.proxy_postgres().await;
    let url = stack.database_url(chaos.port());
    stack.set(Service::Gateway, "DATABASE_URL", url);
    stack.start_all().await;
    let api = stack.api();
    let mut secrets = Secrets::default();
    secrets.keep("the admin token", stack.token());
    secrets.keep("a password", USER_PASSWORD);
    secrets.keep("a wrong password", WRONG_PASSWORD);
    secrets.keep("a new password", NEW_PASSWORD);
    user(&stack, "ada", &["operator"]).await;

    // Successful and failed sign-ins.
    let ada = sign_in(&api, "ada").await;
    secrets.keep("a session", value_of(&ada.cookie));
    let body = json!({"name": "script", "scopes": ["runs:read"]});
    let created = ada.send(Method::POST, "/v1/tokens", &body, 201).await;
    let token = created["token"].as_str().expect("a token").to_owned();
    secrets.keep("a token of a user", &token);
    let of_token = sign_in_with(&api, &json!({"token": token})).await;
    secrets.keep("a session of a token", value_of(&of_token.cookie));
    let run = api.create_run("secretive").await;
    secrets.keep("a publish token", &run.token);
    let password = password_of(&run.redis_url);
    secrets.keep("the password of the run's user in Redis", password);
    tickets_go_wrong(&api, &mut secrets, &format!("/v1/runs/{}/stream", run.id)).await;
    let late = ticket(&api, &json!({})).await;
    secrets.keep("a ticket for the Postgres outage", &late);
    let hook = json!({"url": "https://receiver.invalid/", "on": ["failed"]});
    let hook = ask(&api, Method::POST, "/v1/webhooks", &hook, 201).await;
    secrets.keep(
        "the secret of a webhook",
        hook["secret"].as_str().expect("a secret"),
    );
    let rows = stack
        .database
        .query_strings("SELECT password FROM users WHERE password IS NOT NULL")
        .await;
    secrets.keep("the hash of a password", &rows[0]);

    send_secrets_wrongly(&stack, &secrets, &token).await;
    let password = json!({"password": WRONG_PASSWORD, "new_password": NEW_PASSWORD});
    let path = "/v1/session/password";
    let change = |body: &Value| ada.request(Method::PUT, path).json(body);
    assert_eq!(status(&secrets, change(&password)).await, 403);
    let password = json!({"password": USER_PASSWORD, "new_password": NEW_PASSWORD});
    assert_eq!(status(&secrets, change(&password)).await, 204);

    publish_with_agent(&mut stack, &run).await;
    let (succeeded, output) = operator(&stack, &["token", "list"]).await;
    assert!(succeeded && secrets.within(&output).is_empty(), "{output}");
    let (_, output) = operator(&stack, &["check"]).await;
    assert_eq!(secrets.within(&output), [""; 0], "{output}");

    // While Postgres is unreachable, and when it is back.
    chaos.refuse();
    fail_without_postgres(&stack, &secrets, &ada, run.id, &late).await;
    chaos.forward();
    eventually("Postgres is back", async || {
        match status(&secrets, ada.request(Method::GET, "/v1/runs")).await {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    assert_eq!(
        status(&secrets, ada.request(Method::DELETE, "/v1/session")).await,
        204
    );
    for service in Service::ALL {
        stack.stop(service).await;
    }
    read_logs(&stack, &secrets);
}

/// An agent publishes with all that it was given, and logs everything.
async fn publish_with_agent(stack: &mut Stack, run: &CreatedRun) {
    let settings = [
        ("RUNCAST_TOKEN", run.token.as_str()),
        ("RUNCAST_LOG", "debug"),
    ];
    let mut agent = stack.wrap_with(run.id, &["echo", "hello"], &settings);
    assert!(
        agent
            .wait_exit(runcast_tests::eventually::WAIT_DEADLINE)
            .await
            .success()
    );
    stack.database.wait_sealed(run.id).await;
}

/// Requests that fail while Postgres is unreachable.
async fn fail_without_postgres(
    stack: &Stack,
    secrets: &Secrets,
    ada: &Browser,
    run: Uuid,
    late: &str,
) {
    let api = stack.api();
    for request in [
        ada.request(Method::GET, "/v1/runs"),
        api.request(Method::GET, "/v1/users"),
        api.anonymous(Method::POST, "/v1/session")
            .json(&json!({"user": "ada", "password": NEW_PASSWORD})),
        by_ticket(&api, &format!("/v1/watch?run={run}"), late),
    ] {
        let seen = status(secrets, request).await;
        assert!(!seen.is_success(), "{seen}");
    }
}

/// Tickets that are invalid, used again, or sent where none is accepted.
async fn tickets_go_wrong(api: &Api, secrets: &mut Secrets, path: &str) {
    for (path, expected) in [
        (format!("{path}?after=nonsense"), 400),
        ("/v1/watch".to_owned(), 400),
        (format!("/v1/watch?run={}", Uuid::now_v7()), 404),
    ] {
        let one = ticket(api, &json!({})).await;
        secrets.keep(&format!("a ticket for {path}"), &one);
        for expected in [expected, 401] {
            let seen = status(secrets, by_ticket(api, &path, &one)).await;
            assert_eq!(seen, expected, "{path}");
        }
    }
    let one = ticket(api, &json!({})).await;
    secrets.keep("a ticket where none is accepted", &one);
    for (method, path, expected) in [
        (Method::GET, "/v1/session", 401),
        (Method::POST, TICKETS_PATH, 401),
        (Method::PUT, "/v1/feed", 405),
        (Method::GET, "/v1/nowhere", 404),
        (Method::GET, "/v1/runs/x/stream", 404),
    ] {
        let request = api.anonymous(method.clone(), &with_ticket(path, &one));
        let seen = status(secrets, request.json(&json!({"runs": one}))).await;
        assert_eq!(seen, expected, "{method} {path}");
    }
    let body = json!({"runs": [one]});
    let request = api.request(Method::POST, TICKETS_PATH).json(&body);
    assert_eq!(status(secrets, request).await, 400);
}

/// Each secret in a wrong place.
async fn send_secrets_wrongly(stack: &Stack, secrets: &Secrets, token: &str) {
    let api = stack.api();
    let wrong = |body: Value| api.anonymous(Method::POST, "/v1/session").json(&body);
    for body in [
        json!({"user": "ada", "password": WRONG_PASSWORD}),
        json!({"user": "nobody", "password": USER_PASSWORD}),
        json!({"token": format!("{token}x")}),
        json!({"token": token, "password": USER_PASSWORD}),
        json!({"user": "ada", "password": USER_PASSWORD, "token": token}),
        json!({"user": {"a": "b"}, "password": USER_PASSWORD}),
        json!({"user": "ada", "password": [USER_PASSWORD]}),
        json!({"user": "ada", "password": {"is": USER_PASSWORD}}),
        json!({"user": "ada", "passphrase": USER_PASSWORD}),
    ] {
        let status = status(secrets, wrong(body)).await;
        assert!(status.is_client_error(), "{status}");
    }
    let cut = format!("{{\"user\": \"ada\", \"password\": \"{USER_PASSWORD}\"");
    let request = api.anonymous(Method::POST, "/v1/session").body(cut);
    assert_eq!(status(secrets, request).await, 400);
    for (name, value) in [
        ("authorization", format!("Basic {token}")),
        ("authorization", token.to_owned()),
        ("authorization", format!("Bearer {token} {token}")),
        ("cookie", format!("runcast_session={token}")),
        ("idempotency-key", format!("{token}{}", "x".repeat(300))),
        ("last-event-id", token.to_owned()),
    ] {
        let request = api.anonymous(Method::GET, "/v1/feed").header(name, value);
        assert_eq!(status(secrets, request).await, 401, "{name}");
    }
    // An invalid user and email with a valid password.
    let admin = Api::new(api.base(), stack.token());
    for body in [
        json!({"name": "?", "email": "x@example.com", "password": USER_PASSWORD}),
        json!({"name": "ada", "email": "x@example.com", "password": USER_PASSWORD}),
        json!({"name": "x", "email": "x@example.com", "password": {"is": USER_PASSWORD}}),
    ] {
        let request = admin.request(Method::POST, "/v1/users").json(&body);
        let status = status(secrets, request).await;
        assert!(status.is_client_error(), "{status}");
    }
    let elsewhere = api
        .anonymous(Method::POST, "/v1/runs")
        .header(COOKIE, "runcast_session=x");
    let elsewhere = elsewhere.header("sec-fetch-site", "cross-site");
    assert_eq!(status(secrets, elsewhere).await, 403);
}

/// The logs of all processes, including the operator's commands and the agent.
fn read_logs(stack: &Stack, secrets: &Secrets) {
    let mut read = 0;
    for entry in std::fs::read_dir(stack.folder()).expect("the folder of the stack") {
        let path = entry.expect("a file").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // The command that creates a token prints it once, to its caller.
        let is_log = name.ends_with(".err") || (name.ends_with(".out") && name != "token.out");
        if !is_log {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).expect("a log")).into_owned();
        for line in text.lines() {
            assert_eq!(secrets.within(line), [""; 0], "{name}: {line}");
        }
        if name == "gateway.err" || name == "gateway.out" {
            read += text.lines().filter(|line| line.contains("DEBUG")).count();
        }
    }
    assert!(read > 10, "the gateway logs everything: {read} lines");
}

fn value_of(cookie: &str) -> &str {
    cookie.split_once('=').expect("a pair").1
}

/// `redis://USER:USER_PASSWORD@...`
fn password_of(url: &str) -> &str {
    let (user, _) = url.split_once('@').expect("a user signs in");
    user.rsplit(':').next().expect("a password")
}
