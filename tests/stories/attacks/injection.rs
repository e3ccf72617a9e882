//! Names, paths and headers that might be read as something else: other paths, other headers, other
//! lines of a log.

use reqwest::header::{CONTENT_TYPE, SET_COOKIE};
use reqwest::{Method, StatusCode};
use runcast_tests::api::send;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};

use super::super::access::fixtures::{USER_PASSWORD, ask, json_of, user};
use super::fixtures::{assert_calm, raw};

/// Text that could end a line, a header, a string or a statement.
const ODD_TEXTS: [&str; 10] = [
    "a\r\nset-cookie: runcast_session=planted",
    "a\nERROR forged line of a log",
    "\u{1b}[2J\u{1b}[31mred",
    "<script>alert(1)</script>",
    "'; DROP TABLE users; --",
    "\" onmouseover=\"x",
    "../../etc/passwd",
    "\u{202e}gpj.exe",
    "{{7*7}}${jndi:ldap://x}",
    "a\u{2028}b\u{85}c",
];

/// Checks that no line of a log was forged by a request.
fn assert_no_forged_line(stack: &Stack) {
    for service in Service::ALL {
        for line in stack.logs(service).lines() {
            let is_forged = ["ERROR forged", "set-cookie:", "\u{1b}[2J"]
                .iter()
                .any(|word| line.starts_with(word) || line.contains("\u{1b}[2J"));
            assert!(!is_forged, "{}: {line}", service.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn escaped_paths_reach_no_other_route() {
    let stack = Stack::start().await;
    let api = stack.api();
    let run = api.create_run("x").await.id;
    // Paths are decoded once. No escape leads out of a segment or into another route, so all get
    // 401 or 404.
    for path in [
        &format!("/v1/runs/{run}%2fevents"),
        &format!("/v1/runs%2f{run}"),
        "/v1/runs/..%2fusers",
        "/v1/runs/../users",
        "/v1/runs/%2e%2e/users",
        "/v1//users",
        "/v1/users/",
        "/V1/users",
        "/v1/users;a=b",
        "/v1/users%00",
        "/v1/users/%00",
        "/v1/users%20",
        "/v1/%75sers",
        "/healthz/../v1/users",
        "//v1/users",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/assets/%2e%2e%2findex.html",
        "/assets//etc/passwd",
        "/openapi.json/../v1/users",
    ] {
        let output = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let received = raw(&stack, output.as_bytes()).await;
        let status = received.split(' ').nth(1).unwrap_or_default();
        assert!(
            ["400", "401", "404"].contains(&status),
            "{path}: {received}"
        );
    }
    // With the right to it: a missing object is 404, invalid text 400, and nothing fails.
    for odd in ODD_TEXTS
        .iter()
        .chain(&["\0", "%", "a b", "ß", &"x".repeat(3000)])
    {
        let encoded: String = odd.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for place in [
            "users", "roles", "runs", "tokens", "sessions", "jobs", "webhooks",
        ] {
            for (method, rest) in [
                (Method::GET, ""),
                (Method::DELETE, ""),
                (Method::PUT, "/roles/x"),
            ] {
                let path = format!("/v1/{place}/{encoded}{rest}");
                let response = send(api.request(method.clone(), &path)).await;
                assert!(
                    response.status().is_client_error(),
                    "{method} {path}: {response:?}"
                );
            }
        }
    }
    let not_text = send(api.request(Method::GET, "/v1/users/%ff%fe")).await;
    assert!(not_text.status().is_client_error(), "{not_text:?}");
    assert_no_forged_line(&stack);
    assert_calm(&stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_is_returned_only_as_json_text() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["operator"]).await;
    for odd in ODD_TEXTS {
        let body = json!({"name": odd, "labels": {"note": odd, odd: "x"}});
        let response = send(api.request(Method::POST, "/v1/runs").json(&body)).await;
        let headers = response.headers().clone();
        assert!(!headers.contains_key(SET_COOKIE), "{odd:?}: {headers:?}");
        let created = json_of(response, StatusCode::CREATED).await;
        let run = &created["run"];
        assert_eq!(
            (&run["name"], &run["labels"]["note"]),
            (&json!(odd), &json!(odd))
        );
        let id = run["id"].as_str().expect("an id");
        assert_eq!(api.get(&format!("/v1/runs/{id}")).await["name"], odd);
        // An error that repeats the invalid value is JSON as well, not HTML.
        for path in [
            "/v1/audit?before=",
            "/v1/runs?limit=",
            "/v1/runs?label=",
            "/nowhere/",
        ] {
            let text: String = url_encoded(odd);
            let response = send(api.request(Method::GET, &format!("{path}{text}"))).await;
            let kind = response.headers()[CONTENT_TYPE]
                .to_str()
                .expect("text")
                .to_owned();
            assert!(kind.contains("json"), "{path}{odd}: {kind}");
            let _document: Value = response.json().await.expect("JSON");
        }
        // Names of users, roles and clients consist of letters that need no escaping.
        let user = json!({"name": odd, "email": "o@example.com"});
        ask(&api, Method::POST, "/v1/users", &user, 400).await;
        let role = json!({"name": odd, "permissions": []});
        ask(&api, Method::POST, "/v1/roles", &role, 400).await;
        let client = json!({"user": "ada", "password": USER_PASSWORD, "client": odd});
        let request = api.anonymous(Method::POST, "/v1/session");
        let response = send(request.json(&client)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{odd:?}");
        assert!(!response.headers().contains_key(SET_COOKIE));
        // A failed sign-in logs the claimed name without forging a line.
        let failed = json!({"user": odd, "password": odd});
        request_anonymously(&stack, &failed, 401).await;
        let token = json!({"name": odd, "scopes": ["runs:read"]});
        ask(&api, Method::POST, "/v1/tokens", &token, 201).await;
    }
    assert_no_forged_line(&stack);
    assert_calm(&stack);
}

async fn request_anonymously(stack: &Stack, body: &Value, status: u16) {
    let request = stack.api().anonymous(Method::POST, "/v1/session");
    let response = send(request.json(body)).await;
    assert_eq!(response.status().as_u16(), status, "{body}");
}

fn url_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Requests inside of requests, and headers that no client sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_requests_are_refused() {
    let stack = Stack::start().await;
    let token = stack.token();
    let hidden =
        format!("GET /v1/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    for head in [
        // Both lengths; a duplicate length; an invalid length; an invalid encoding.
        "content-length: 5\r\ntransfer-encoding: chunked",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: +5",
        "content-length: 5, 5, 7",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        // Folded lines, and a blank before the colon.
        "x-a: b\r\n c: d",
        "content-length : 5",
    ] {
        let output =
            format!("POST /v1/session HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n0\r\n\r\n{hidden}");
        let received = raw(&stack, output.as_bytes()).await;
        assert!(!received.contains("\"users\""), "{head}: {received}");
        let status = received.split(' ').nth(1).unwrap_or("closed");
        assert!(!status.starts_with('5'), "{head}: {received}");
    }
    for line in [
        "GET /v1/users\u{a0}HTTP/1.1",
        "GET  /v1/users HTTP/1.1",
        "GET /v1/users",
        "\0\u{1}\u{2}",
    ] {
        let received = raw(&stack, format!("{line}\r\nhost: x\r\n\r\n").as_bytes()).await;
        assert!(
            received.is_empty() || received.starts_with("HTTP/1.1 400 "),
            "{line:?}: {received}"
        );
    }
    assert_no_forged_line(&stack);
    assert_calm(&stack);
}
