//! The cache hit rate in a mix of requests like that of a busy day. Of many users and tokens, few
//! send most requests (Zipf, exponent 1), half by session and half by token. Per thousand requests
//! ten users sign in again, three tokens change, and three users get other roles. Each hundredth
//! request has an unknown token.
//!
//! The cache starts empty in the measured part, so first misses count. In its favour: the part is
//! shorter than the five minutes for which a user's rights are cached, after which all miss once
//! more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, send};
use runcast_tests::programs::free_port;
use runcast_tests::stack::{Service, Stack};

use crate::measure::say;
use crate::{Scale, users};

/// The hit rate that the issue requires.
const REQUIRED_HIT_RATE: f64 = 0.85;

/// Concurrent requests.
const AT_ONCE: usize = 16;

/// Requests between two changes of each kind.
const SIGN_IN_EVERY: usize = 100;
const CHANGE_EVERY: usize = 333;

/// This many ranks, the first most often.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: usize) -> Self {
        let sums = (1..=count).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self(sums.collect())
    }

    fn pick(&self, random: &mut StdRng) -> usize {
        let all = self.0.last().copied().unwrap_or_default();
        let expected = random.random_range(0.0..all);
        self.0.partition_point(|sum| *sum <= expected)
    }
}

pub(crate) async fn mix(scale: Scale) {
    let mut stack = Stack::without_services().await;
    let metrics = format!("127.0.0.1:{}", free_port());
    stack.set(Service::Gateway, "RUNCAST_METRICS_LISTEN", metrics.clone());
    stack.start_all().await;
    users::make(&stack, scale.users).await;
    let zipf = Zipf::new(scale.users);
    let mut random = StdRng::seed_from_u64(6);
    // Chosen in advance, so that the order of responses changes nothing.
    let requested: Vec<(usize, usize)> = (0..scale.requested)
        .map(|number| (number, zipf.pick(&mut random)))
        .collect();
    let sessions: Vec<AtomicUsize> = (0..scale.users).map(|_| AtomicUsize::new(0)).collect();
    let api = stack.api();
    let refused = AtomicUsize::new(0);
    let ask = async |(number, who): (usize, usize)| {
        churn(&stack, &sessions, number, who).await;
        let request = api.anonymous(Method::GET, "/v1/session");
        let request = match number {
            _ if number % 100 == 99 => request.bearer_auth(users::token(scale.users + number)),
            _ if number % 2 == 0 => request.bearer_auth(users::token(who)),
            _ => {
                let secret = users::session(who, sessions[who].load(Ordering::Relaxed));
                request.header("cookie", format!("runcast_session={secret}"))
            }
        };
        match send(request).await.status() {
            StatusCode::OK => {}
            // It is being changed at this moment, or never existed.
            StatusCode::UNAUTHORIZED => {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            other => panic!("{other}"),
        }
    };
    let began = Instant::now();
    let mut responses = std::pin::pin!(
        futures::stream::iter(requested)
            .map(ask)
            .buffer_unordered(AT_ONCE)
    );
    while responses.next().await.is_some() {}
    let took = began.elapsed();
    let counts = Api::new(&format!("http://{metrics}"), "");
    let text = send(counts.anonymous(Method::GET, "/metrics")).await;
    let text = text.text().await.expect("metrics");
    say(format_args!(
        "\nCopies that were found: {} requests of {} users and as many tokens in {took:.1?}, {} of them refused\n\n\
         | | hits | misses | share |\n|---|---|---|---|",
        scale.requested,
        scale.users,
        refused.load(Ordering::Relaxed),
    ));
    let mut all = [0.0; 2];
    for cache in ["session", "token", "permissions"] {
        let [hits, misses] = ["hit", "miss"].map(|outcome| count(&text, cache, outcome));
        all = [all[0] + hits, all[1] + misses];
        say(format_args!(
            "| {cache} | {hits:.0} | {misses:.0} | {:.3} |",
            hits / (hits + misses)
        ));
    }
    let share = all[0] / (all[0] + all[1]);
    let verdict = if share > REQUIRED_HIT_RATE {
        "over"
    } else {
        "NOT over"
    };
    say(format_args!(
        "| all | {:.0} | {:.0} | {share:.3} |\n\n{verdict} {REQUIRED_HIT_RATE}",
        all[0], all[1]
    ));
}

/// The changes between the requests.
async fn churn(stack: &Stack, sessions: &[AtomicUsize], number: usize, who: usize) {
    if number.is_multiple_of(SIGN_IN_EVERY) {
        let next = sessions[who].load(Ordering::Relaxed) + 1;
        users::sign_in(stack, who, next).await;
        sessions[who].store(next, Ordering::Relaxed);
    }
    match number % CHANGE_EVERY {
        1 => users::change_token(stack, who).await,
        2 => users::change_roles(stack, who).await,
        _ => {}
    }
}

fn count(metrics: &str, cache: &str, outcome: &str) -> f64 {
    let lines = metrics.lines().filter(|line| {
        line.starts_with("runcast_access_lookups")
            && line.contains(&format!("\"{cache}\""))
            && line.contains(&format!("\"{outcome}\""))
    });
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}
