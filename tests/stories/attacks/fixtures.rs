//! What somebody tries who has no business here, or more business than is theirs; and what comes of it: nothing.
//!
//! Every story ends by looking at what the gateway said meanwhile: nothing went wrong on our side.

use reqwest::Method;
use runcast_tests::eventually::{WAIT_DEADLINE, within};
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Says this on a connection of its own, and gives what the gateway says until it closes.
pub(super) async fn raw(stack: &Stack, said: &[u8]) -> String {
    let api = stack.api();
    let address = api.base().strip_prefix("http://").expect("an address");
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    // It may close in the middle of it.
    let _sent = socket.write_all(said).await;
    let mut heard = Vec::new();
    // What was closed with something unread ends by an error.
    let _end = within(WAIT_DEADLINE, "the end", socket.read_to_end(&mut heard)).await;
    String::from_utf8_lossy(&heard).into_owned()
}

/// All operations that are documented, by method and path.
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

/// Checks that the gateway neither panicked nor saw an error of its own.
pub(super) fn assert_calm(stack: &Stack) {
    let logs = stack.logs(Service::Gateway);
    for word in ["panicked", "ERROR"] {
        let line = logs.lines().find(|line| line.contains(word));
        assert_eq!(line, None, "the gateway's log holds {word}");
    }
}
