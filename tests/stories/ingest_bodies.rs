//! Bodies of publishers that cost a gateway more than they should: compressed ones that become
//! large, and lines in tiny pieces.

use std::io::Write as _;

use futures::stream;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Body, Method, StatusCode};
use runcast_common::protocol::event::Kind;
use runcast_tests::api::{problem, send};
use runcast_tests::database::text;
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use uuid::Uuid;

use crate::viewer::assert_text;

/// Compresses bytes with this window, and without their size.
fn zstd(window_log: u32, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(window_log).expect("a window");
    encoder.write_all(bytes).expect("compressed bytes");
    encoder.finish().expect("a whole frame")
}

fn publish(stack: &Stack, run: Uuid, encoding: &str) -> reqwest::RequestBuilder {
    let path = format!("/v1/runs/{run}/events");
    let request = stack.api().request(Method::POST, &path);
    request
        .header(CONTENT_TYPE, "text/plain")
        .header(CONTENT_ENCODING, encoding)
}

/// Memory of the gateway that is in use, in bytes.
fn gateway_memory(stack: &Stack) -> u64 {
    let path = format!("/proc/{}/status", stack.process_id(Service::Gateway));
    let status = std::fs::read_to_string(path).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_windows_are_refused_and_take_no_memory() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("bombs").await.id;
    let bomb = zstd(27, &vec![b'\n'; 160 << 20]);
    assert!(bomb.len() < 64 * 1024, "{} bytes", bomb.len());
    let before = gateway_memory(&stack);
    for _ in 0..10 {
        let answer = send(publish(&stack, run, "zstd").body(bomb.clone())).await;
        let detail = problem(answer, StatusCode::BAD_REQUEST).await;
        assert!(detail.contains("a window over 8 MiB"), "{detail}");
    }
    let grown = gateway_memory(&stack).saturating_sub(before);
    assert!(grown < 64 << 20, "the gateway has grown by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_text_is_stored_as_it_was() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("compressed").await.id;
    let lines = |from: u32| -> String { (from..from + 20_000).map(|n| format!("{n}\n")).collect() };
    // The largest window that is accepted, and several frames in a row.
    let mut body = zstd(23, lines(1).as_bytes());
    body.extend(zstd(17, lines(20_001).as_bytes()));
    let answer = send(publish(&stack, run, "zstd").body(body)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let accepted: Value = answer.json().await.expect("JSON");
    assert_eq!(accepted["stored"], 40_000);
    stack.database.wait_stored_events(run, 40_000).await;
    let expected = lines(1) + &lines(20_001);
    assert_text(
        &text(&stack.database.events(run).await, Kind::Output),
        &expected,
    );

    let answer = send(publish(&stack, run, "br").body("a\n")).await;
    problem(answer, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    for encoding in ["zstd", "gzip"] {
        let answer = send(publish(&stack, run, encoding).body("plain text\n")).await;
        let detail = problem(answer, StatusCode::BAD_REQUEST).await;
        assert!(detail.contains(&format!("is not {encoding}")), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_in_tiny_pieces_is_one_event() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("tiny pieces").await.id;
    let line: String = "abcdefghij".repeat(3_000) + "\n";
    let bytes = line.clone().into_bytes().into_iter();
    let pieces = bytes.map(|byte| Ok::<_, std::io::Error>(vec![byte]));
    let body = Body::wrap_stream(stream::iter(pieces));
    let answer = send(publish(&stack, run, "identity").body(body)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    stack.database.wait_stored_events(run, 1).await;
    let events = stack.database.events(run).await;
    assert_eq!(events.len(), 1);
    assert_text(&text(&events, Kind::Output), &line);
}
