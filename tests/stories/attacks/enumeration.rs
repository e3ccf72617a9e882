//! Signing in does not reveal whether a user exists: neither by the response nor by its time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use runcast_tests::api::{Api, send};
use runcast_tests::stack::Stack;
use serde_json::json;

use super::super::access::fixtures::{USER_PASSWORD, ask, try_sign_in, user};
use super::fixtures::assert_calm;

/// Attempts of each kind.
const ATTEMPT_COUNT: usize = 40;

/// Largest permitted ratio of medians. Without any work on a password, a response is some fifty
/// times as fast.
const MAX_MEDIAN_RATIO: f64 = 2.0;

/// Users who cannot sign in, each for another reason.
const FAILING_USERS: [(&str, &str); 5] = [
    ("ada", "wrong horse battery"),
    ("nobody", USER_PASSWORD),
    ("bot", USER_PASSWORD),
    ("gone", USER_PASSWORD),
    ("nobody@example.com", "x"),
];

async fn prepare() -> Stack {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["admin"]).await;
    user(&stack, "gone", &["viewer"]).await;
    let disable = json!({"disabled": true});
    ask(&api, Method::PATCH, "/v1/users/gone", &disable, 200).await;
    let bot = json!({"name": "bot", "email": "bot@example.com"});
    ask(&api, Method::POST, "/v1/users", &bot, 201).await;
    stack
}

/// The whole response except its time.
async fn response_parts(response: Response) -> (u16, BTreeMap<String, String>, String) {
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), format!("{value:?}")))
        .filter(|(name, _)| !["date", "ratelimit"].contains(&name.as_str()))
        .collect();
    (status, headers, response.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_in_failures_have_identical_responses() {
    let stack = prepare().await;
    let api = stack.api();
    let mut seen = Vec::new();
    for (name, password) in FAILING_USERS {
        let body = json!({"user": name, "password": password});
        seen.push(response_parts(try_sign_in(&api, &body).await).await);
    }
    let first = seen.first().expect("a response").clone();
    assert_eq!(first.0, 401);
    for (case, response_parts) in FAILING_USERS.iter().zip(seen) {
        assert_eq!(response_parts, first, "{case:?}");
    }
    // Administrators' routes do not reveal users to others either.
    let stranger = Api::new(api.base(), &stack.create_token("runs:read").await);
    let mut refusals = Vec::new();
    for name in ["ada", "nobody"] {
        let path = format!("/v1/users/{name}");
        refusals.push(response_parts(send(stranger.request(Method::GET, &path)).await).await);
    }
    assert_eq!(refusals[0].0, 403);
    assert_eq!(refusals[0], refusals[1]);
    assert_calm(&stack);
}

async fn sign_in_time(api: &Api, name: &str, password: &str) -> Duration {
    let began = Instant::now();
    let body = json!({"user": name, "password": password});
    let status = try_sign_in(api, &body).await.status();
    assert_eq!(status, 401, "{name}");
    began.elapsed()
}

/// The kinds take turns, so that other load affects all alike; the median ignores pauses of the
/// machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_in_failures_take_the_same_time() {
    let stack = prepare().await;
    let api = stack.api();
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for _ in 0..ATTEMPT_COUNT {
        for (name, password) in FAILING_USERS {
            let sign_in_time = sign_in_time(&api, name, password).await;
            times.entry(name).or_default().push(sign_in_time);
        }
    }
    let medians: BTreeMap<&str, f64> = times
        .into_iter()
        .map(|(name, mut times)| {
            times.sort();
            (name, times[ATTEMPT_COUNT / 2].as_secs_f64() * 1e3)
        })
        .collect();
    let most = medians.values().copied().fold(f64::MIN, f64::max);
    let least = medians.values().copied().fold(f64::MAX, f64::min);
    assert!(
        most / least < MAX_MEDIAN_RATIO,
        "medians in ms: {medians:?}"
    );
    assert_calm(&stack);
}
