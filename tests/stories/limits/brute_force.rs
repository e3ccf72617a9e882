//! Guessing credentials, at any speed, lets no attacker in and locks no other client out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, send};
use runcast_tests::stack::Stack;
use serde_json::json;

use crate::access::tickets::{by_ticket, ticket};

use super::fixtures::{from, limited, list, metric, non_admin};

const ATTACKER_ADDRESS: &str = "203.0.113.9";
const GUESS_COUNT: usize = 10_000;

/// Concurrent guesses.
const CONCURRENT_GUESSES: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_are_limited_and_other_clients_served() {
    let stack = limited("read=1000000/min").await;
    let (api, known) = (stack.api(), non_admin(&stack, "runs:read").await);
    // A client behind the same address that had a valid credential before.
    let as_attacker = async || {
        let request = known.request(Method::GET, "/v1/runs?limit=1");
        send(from(request, ATTACKER_ADDRESS)).await.status()
    };
    assert_eq!(as_attacker().await, StatusCode::OK);

    let is_over = Arc::new(AtomicBool::new(false));
    let other = non_admin(&stack, "runs:read").await;
    let served = tokio::spawn(list_until(other, Arc::clone(&is_over)));
    let began = Instant::now();
    let guess = async |number: usize| {
        let token = format!("rct_{number:043}");
        let request = match number % 2 {
            0 => api.anonymous(Method::GET, "/v1/runs").bearer_auth(token),
            _ => api
                .anonymous(Method::POST, "/v1/session")
                .json(&json!({"token": token})),
        };
        (
            number % 2,
            send(from(request, ATTACKER_ADDRESS))
                .await
                .status()
                .as_u16(),
        )
    };
    let responses = futures::stream::iter(0..GUESS_COUNT).map(guess);
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    let mut responses = std::pin::pin!(responses.buffer_unordered(CONCURRENT_GUESSES));
    while let Some(outcome) = responses.next().await {
        *counts.entry(outcome).or_default() += 1;
    }
    let took = began.elapsed();
    assert_eq!(
        as_attacker().await,
        StatusCode::OK,
        "a valid credential is accepted"
    );
    is_over.store(true, Ordering::Relaxed);
    let (count, slowest) = served.await.expect("the other client was served");

    let lookups: usize = [0, 1]
        .iter()
        .filter_map(|kind| counts.get(&(*kind, 401)))
        .sum();
    let seconds = usize::try_from(took.as_secs()).expect("seconds");
    // 30 at once, and one every two seconds, plus the requests in progress.
    let max_guesses = 30 + seconds / 2 + CONCURRENT_GUESSES;
    assert!(
        (5..=max_guesses).contains(&lookups),
        "{counts:?} in {took:?}"
    );
    let refused: usize = [0, 1]
        .iter()
        .filter_map(|kind| counts.get(&(*kind, 429)))
        .sum();
    assert_eq!(refused + lookups, GUESS_COUNT, "nothing else: {counts:?}");
    assert!(
        count > 0 && slowest < Duration::from_secs(5),
        "{count} served, one in {slowest:?}"
    );
    let limited = r#"runcast_limits_limited_total{policy="failed",source="redis"}"#;
    assert!(metric(&stack, limited).await > 8000);
    print_result(count, slowest, took, lookups);
    wait_until_unlimited(&stack).await;
}

/// Lists runs again and again; returns the count and the longest time.
async fn list_until(client: Api, is_over: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        assert_eq!(list(&client).await.status(), StatusCode::OK);
        slowest = slowest.max(began.elapsed());
        count += 1;
    }
    (count, slowest)
}

async fn wait_until_unlimited(stack: &Stack) {
    // After so many wrong credentials a valid one is refused as well, until the address may try
    // again.
    let fresh = non_admin(stack, "runs:read").await;
    runcast_tests::eventually::eventually("the address is no longer limited", async || {
        let request = from(
            fresh.request(Method::GET, "/v1/runs?limit=1"),
            ATTACKER_ADDRESS,
        );
        match send(request).await.status() {
            StatusCode::OK => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

/// An invalid ticket counts as a wrong credential, and so does a used one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_tickets_count_as_guesses() {
    let stack = limited("failed=5/min").await;
    let api = stack.api();
    let reader = non_admin(&stack, "runs:read").await;
    let ask = async |ticket: &str, address: &str| {
        let request = by_ticket(&api, "/v1/feed", ticket);
        send(from(request, address)).await
    };
    let used = ticket(&reader, &json!({})).await;
    assert_eq!(ask(&used, ATTACKER_ADDRESS).await.status(), StatusCode::OK);
    for guess in ["rcs_x".to_owned(), format!("rcs_{:043}", 1), used.clone()] {
        let status = ask(&guess, ATTACKER_ADDRESS).await.status();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    for _ in 0..2 {
        let status = ask(&used, ATTACKER_ADDRESS).await.status();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    // Now the address must wait even with a valid ticket, which is not used up.
    let right = ticket(&reader, &json!({})).await;
    for displayed in [&used, &right] {
        let answer = ask(displayed, ATTACKER_ADDRESS).await;
        assert_eq!(answer.status(), StatusCode::OK, "a stream that ends");
        let output = answer.text().await.expect("all of it");
        assert!(
            output.contains("event: closing") && output.contains("wrong credentials"),
            "{output}"
        );
    }
    assert_eq!(ask(&right, "203.0.113.10").await.status(), StatusCode::OK);
}

/// The numbers are printed, but not judged: the machine has other load.
fn print_result(count: usize, slowest: Duration, took: Duration, lookups: usize) {
    use std::io::Write as _;
    writeln!(
        std::io::stderr(),
        "{GUESS_COUNT} guesses in {took:?}, {lookups} looked up; meanwhile {count} requests of another client, the slowest {slowest:?}"
    )
    .expect("stderr takes a text");
}
