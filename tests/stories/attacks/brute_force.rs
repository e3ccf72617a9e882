//! Ten thousand wrong passwords, from one address and from many: few are checked, and other clients
//! are not affected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::{Method, RequestBuilder, StatusCode};
use runcast_tests::api::{Api, send};
use runcast_tests::stack::{Service, Stack};
use serde_json::json;
use tokio::task::JoinHandle;

use super::super::access::fixtures::{USER_PASSWORD, sign_in, user};
use super::fixtures::assert_calm;

const GUESS_COUNT: usize = 10_000;

/// Concurrent guesses.
const CONCURRENT_GUESSES: usize = 32;

/// Longest delay of another client, on a loaded machine.
const MAX_DELAY: Duration = Duration::from_secs(10);

async fn prepare() -> Stack {
    let mut stack = Stack::without_services().await;
    // The default limits where passwords are concerned.
    let limits = "read=1000000/min,write=1000000/min";
    stack.set(Service::Gateway, "RUNCAST_LIMITS", limits);
    stack.set(Service::Gateway, "RUNCAST_TRUSTED_PROXIES", "127.0.0.0/8");
    stack.start_all().await;
    user(&stack, "ada", &["admin"]).await;
    user(&stack, "bob", &["viewer"]).await;
    stack
}

fn from(request: RequestBuilder, address: &str) -> RequestBuilder {
    request.header("x-forwarded-for", address)
}

/// Measures how another client fares meanwhile: it reads all the time and signs in now and then,
/// each time from a new address.
fn measure_other_client(
    api: Api,
    is_over: Arc<AtomicBool>,
) -> JoinHandle<(usize, Duration, usize, Duration)> {
    let token = |request: RequestBuilder| from(request, "198.51.100.7");
    tokio::spawn(async move {
        let (mut reads, mut slowest, mut signed_in, mut slowest_in) =
            (0, Duration::ZERO, 0, Duration::ZERO);
        let mut last: Option<Instant> = None;
        while !is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let request = token(api.request(Method::GET, "/v1/runs?limit=1"));
            assert_eq!(send(request).await.status(), StatusCode::OK);
            slowest = slowest.max(began.elapsed());
            reads += 1;
            // Within the default of five a minute.
            if last.is_none_or(|last| last.elapsed() > Duration::from_secs(13)) {
                let began = Instant::now();
                let body = json!({"user": "bob", "password": USER_PASSWORD});
                let request = api.anonymous(Method::POST, "/v1/session").json(&body);
                let status = send(token(request)).await.status();
                assert_eq!(status, StatusCode::OK, "the other client signs in");
                slowest_in = slowest_in.max(began.elapsed());
                signed_in += 1;
                last = Some(Instant::now());
            }
        }
        (reads, slowest, signed_in, slowest_in)
    })
}

/// Guesses from the address and for the user of each number; counts the responses.
async fn guess(
    stack: &Stack,
    address: impl Fn(usize) -> String,
    name: impl Fn(usize) -> String,
) -> BTreeMap<u16, usize> {
    let api = stack.api();
    let is_over = Arc::new(AtomicBool::new(false));
    let measure_other_client = measure_other_client(api.clone(), Arc::clone(&is_over));
    let began = Instant::now();
    let guess = async |number: usize| {
        let body = json!({"user": name(number), "password": format!("guess number {number}")});
        let request = api.anonymous(Method::POST, "/v1/session").json(&body);
        send(from(request, &address(number)))
            .await
            .status()
            .as_u16()
    };
    let responses = futures::stream::iter(0..GUESS_COUNT).map(guess);
    let mut responses = std::pin::pin!(responses.buffer_unordered(CONCURRENT_GUESSES));
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    while let Some(status) = responses.next().await {
        *counts.entry(status).or_default() += 1;
    }
    let took = began.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let (reads, slowest, signed_in, slowest_in) = measure_other_client
        .await
        .expect("the other client is served");
    print_line(&format!(
        "{GUESS_COUNT} passwords in {took:?}: {counts:?}; meanwhile {reads} reads, the slowest {slowest:?}, \
         and {signed_in} sign-ins, the slowest {slowest_in:?}"
    ));
    assert!(reads > 0 && slowest < MAX_DELAY, "a read took {slowest:?}");
    assert!(
        signed_in > 0 && slowest_in < MAX_DELAY,
        "a sign-in took {slowest_in:?}"
    );
    let kinds: usize = [401, 429, 503]
        .iter()
        .filter_map(|kind| counts.get(kind))
        .sum();
    assert_eq!(kinds, GUESS_COUNT, "nothing else: {counts:?}");
    counts
}

fn print_line(words: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{words}").expect("stderr takes a line");
}

/// As many as five a minute permit in this time, and five more in case Redis is too slow to count.
fn max_checked(took: Duration) -> usize {
    10 + usize::try_from(took.as_secs()).expect("seconds") / 12 + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_from_one_address_are_limited() {
    let stack = prepare().await;
    let began = Instant::now();
    // Of many users, so that the limit by address applies.
    let counts = guess(
        &stack,
        |_| "203.0.113.9".to_owned(),
        |number| format!("user{number}"),
    )
    .await;
    let checked = counts.get(&401).copied().unwrap_or_default();
    assert!(
        (1..=max_checked(began.elapsed())).contains(&checked),
        "{counts:?}"
    );
    assert_calm(&stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_from_many_addresses_are_limited() {
    let stack = prepare().await;
    let began = Instant::now();
    let address = |number: usize| format!("10.{}.{}.9", number / 250, number % 250);
    // Any spelling of the name means the same user, whose password is checked only as often as the
    // limit by name permits.
    let spelt = |number: usize| ["ada", "ADA", " ada ", "Ada"][number % 4].to_owned();
    let counts = guess(&stack, address, spelt).await;
    let checked = counts.get(&401).copied().unwrap_or_default();
    assert!(
        (1..=max_checked(began.elapsed())).contains(&checked),
        "{counts:?}"
    );
    // Existing sessions are not locked out.
    assert_eq!(stack.api().get("/v1/session").await["name"], "story");
    assert_calm(&stack);
}

/// Each user once, from an address of its own: no limit applies, and argon2 must not take more than
/// its share of the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unlimited_guesses_do_not_starve_other_clients() {
    let stack = prepare().await;
    let api = stack.api();
    let is_over = Arc::new(AtomicBool::new(false));
    let measure_other_client = measure_other_client(api.clone(), Arc::clone(&is_over));
    let began = Instant::now();
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    let guess = async |number: usize| {
        let body = json!({"user": format!("user{number}"), "password": "a wrong guess"});
        let request = api.anonymous(Method::POST, "/v1/session").json(&body);
        let address = format!("10.{}.{}.9", number / 250, number % 250);
        send(from(request, &address)).await.status().as_u16()
    };
    // Fewer at a time than there are permits, so that another client always gets one.
    let responses = futures::stream::iter(0..400).map(guess);
    let mut responses = std::pin::pin!(responses.buffer_unordered(8));
    while let Some(status) = responses.next().await {
        *counts.entry(status).or_default() += 1;
    }
    is_over.store(true, Ordering::Relaxed);
    let (reads, slowest, signed_in, slowest_in) = measure_other_client
        .await
        .expect("the other client is served");
    print_line(&format!(
        "400 passwords in {:?}: {counts:?}; meanwhile {reads} reads, the slowest {slowest:?}, \
         and {signed_in} sign-ins, the slowest {slowest_in:?}",
        began.elapsed()
    ));
    assert!(signed_in > 0 && slowest < MAX_DELAY && slowest_in < MAX_DELAY);
    sign_in(&api, "ada").await;
    assert_calm(&stack);
}
