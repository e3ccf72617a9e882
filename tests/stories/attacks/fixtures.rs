//! Shared by the stories of attacks: raw requests, all operations, and the check of the log.

use reqwest::Method;
use runcast_tests::eventually::{WAIT_DEADLINE, within};
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends these bytes on a new connection; returns what the gateway sends until it closes.
pub(super) async fn raw(stack: &Stack, output: &[u8]) -> String {
    let api = stack.api();
    let address = api.base().strip_prefix("http://").expect("a URL");
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    // The gateway may close in the middle of it.
    let _sent = socket.write_all(output).await;
    let mut received = Vec::new();
    // A connection closed with unread bytes ends with an error.
    let _end = within(WAIT_DEADLINE, "the end", socket.read_to_end(&mut received)).await;
    String::from_utf8_lossy(&received).into_owned()
}

/// All documented operations, by method and path.
pub(super) async fn operations(stack: &Stack) -> Vec<(Method, String)> {
    let document: Value = stack.api().get("/openapi.json").await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ] {
            if item[method.as_str().to_lowercase()].is_object() {
                operations.push((method, path.clone()));
            }
        }
    }
    assert!(operations.len() > 40, "{operations:?}");
    operations
}

/// Checks that the gateway has logged no panic and no error of its own.
pub(super) fn assert_calm(stack: &Stack) {
    let logs = stack.logs(Service::Gateway);
    for word in ["panicked", "ERROR"] {
        let line = logs.lines().find(|line| line.contains(word));
        assert_eq!(line, None, "the gateway's log contains {word}");
    }
}
