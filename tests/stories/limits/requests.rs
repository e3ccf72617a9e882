//! Limits of a request's size and time, and the headers of responses.

use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode};
use runcast_tests::api::{Api, problem, send};
use runcast_tests::eventually::{WAIT_DEADLINE, within};
use runcast_tests::stack::{Service, Stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fixtures::{header, list};

/// Longer than any deadline of a request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(45);

async fn connect(stack: &Stack) -> TcpStream {
    let base = stack.api().base().to_owned();
    let address = base.strip_prefix("http://").expect("a URL").to_owned();
    TcpStream::connect(address).await.expect("a connection")
}

/// Sends these bytes; returns what the gateway sends until it closes.
async fn raw_request(stack: &Stack, output: &[u8]) -> String {
    let mut socket = connect(stack).await;
    // The gateway may close in the middle of it.
    let _sent = socket.write_all(output).await;
    let mut received_bytes = Vec::new();
    let reading = within(
        REQUEST_DEADLINE,
        "the end",
        socket.read_to_end(&mut received_bytes),
    );
    let _ended = reading.await;
    String::from_utf8_lossy(&received_bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_requests_are_refused_with_the_limit() {
    let stack = Stack::start().await;
    let api = stack.api();
    let large = "x".repeat(40 * 1024);
    let requested = api
        .request(Method::GET, "/v1/runs")
        .header("x-large", &large);
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let detail = problem(send(requested).await, status).await;
    assert!(detail.contains("32768"), "{detail}");
    let mut many = api.request(Method::GET, "/v1/runs");
    for number in 0..90 {
        many = many.header(format!("x-{number}"), "x");
    }
    let detail = problem(send(many).await, status).await;
    assert!(detail.contains("limit of 80"), "{detail}");
    let long = format!("/v1/runs?q={}", "x".repeat(20 * 1024));
    let detail = problem(
        send(api.request(Method::GET, &long)).await,
        StatusCode::URI_TOO_LONG,
    );
    assert!(detail.await.contains("16384"));
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(100 * 1024));
    let created = api.request(Method::POST, "/v1/runs").body(body);
    let created = created.header("content-type", "application/json");
    problem(send(created).await, StatusCode::PAYLOAD_TOO_LARGE).await;
    // Beyond that, the HTTP library refuses the request in one line, before it has read all of it.
    for head in [
        format!("x: {}\r\n", "x".repeat(100 * 1024)),
        "x: x\r\n".repeat(2000),
    ] {
        let output = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{head}\r\n");
        let received_bytes = raw_request(&stack, output.as_bytes()).await;
        assert!(
            received_bytes.starts_with("HTTP/1.1 431 "),
            "{received_bytes:?}"
        );
    }
    assert_eq!(list(&api).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_requests_time_out() {
    let stack = Stack::start().await;
    let began = Instant::now();
    let token = stack.token();
    let post = format!(
        "POST /v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{{"
    );
    let (head, body, nothing, between) = tokio::join!(
        trickle(&stack, b"GET /healthz HTTP/1.1\r\nx: "),
        trickle(&stack, post.as_bytes()),
        raw_request(&stack, b""),
        raw_request(&stack, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"),
    );
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    assert!(body.contains("application/problem+json"), "{body}");
    assert!(body.contains("took longer than 20s"), "{body}");
    // There is no request yet that could be answered.
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408 "),
        "{head}"
    );
    assert_eq!(nothing, "");
    assert!(between.starts_with("HTTP/1.1 200 "), "{between}");
    let took = began.elapsed();
    assert!(took < REQUEST_DEADLINE, "{took:?}");
}

/// Sends these bytes, then one byte per second; returns what the gateway sends until the end.
async fn trickle(stack: &Stack, output: &[u8]) -> String {
    let (mut reader, mut writer) = connect(stack).await.into_split();
    writer.write_all(output).await.expect("the request is sent");
    let mut received_bytes = Vec::new();
    let trickling = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if writer.write_all(b" ").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let reading = within(
        REQUEST_DEADLINE,
        "the end",
        reader.read_to_end(&mut received_bytes),
    );
    tokio::select! {
        _ended = reading => {}
        () = trickling => {}
    }
    String::from_utf8_lossy(&received_bytes).into_owned()
}

fn assert_secured(response: &Response) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(header(response, name), value, "{}", response.url());
    }
    let policy = header(response, "content-security-policy");
    for word in [
        "default-src 'none'",
        "script-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(word), "{policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains('*'),
        "{policy}"
    );
    assert!(header(response, "permissions-policy").contains("camera=()"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_responses_have_security_headers() {
    let mut stack = Stack::start().await;
    let api = stack.api();
    let responses = async |api: &Api| {
        let page = send(api.anonymous(Method::GET, "/")).await;
        let refused = send(api.anonymous(Method::GET, "/v1/runs")).await;
        let nowhere = send(api.anonymous(Method::GET, "/nowhere")).await;
        [page, list(api).await, refused, nowhere]
    };
    for response in responses(&api).await {
        assert_secured(&response);
        assert!(
            response
                .headers()
                .get("strict-transport-security")
                .is_none()
        );
    }
    // Browsers use https up to a proxy.
    stack.stop(Service::Gateway).await;
    stack.set(
        Service::Gateway,
        "RUNCAST_PUBLIC_URL",
        "https://runcast.example.com",
    );
    let mut secure = stack.service_spec(Service::Gateway).start(stack.folder());
    secure
        .wait_for_line(
            "Runcast is ready at https://runcast.example.com",
            WAIT_DEADLINE,
        )
        .await;
    for response in responses(&api).await {
        assert_secured(&response);
        let only = header(&response, "strict-transport-security").to_owned();
        assert!(only.starts_with("max-age="), "{only}");
    }
    secure.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(secure.wait_exit(WAIT_DEADLINE).await.success());
}
