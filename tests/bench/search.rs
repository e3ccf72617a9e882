//! What the most expensive searches cost others: `tests/bench/run search [SECONDS]`.
//!
//! A viewer of a run that gets 100 events a second, and requests of `/healthz`, first alone, then
//! while four clients search 64 lines of 60,000 characters, with the expression that is the most
//! work of all that are accepted. After that: how long a search goes on once its client has left,
//! measured by the next search, which waits for its thread.

mod measure;

use std::time::{Duration, Instant};

use reqwest::Method;
use runcast_tests::api::{Api, send};
use runcast_tests::event_lines::output_line;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::Stack;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use measure::{quantile, say};

/// Time between two events, and between two requests of `/healthz`.
const PERIOD: Duration = Duration::from_millis(10);

/// Clients that search at the same time.
const SEARCHERS: usize = 4;

/// Clients that leave, one after the other, and when.
const LEAVERS: usize = 20;
const LEAVE_AFTER: Duration = Duration::from_millis(300);

/// Expressions that are as much work as is accepted.
const EXPENSIVE: [(&str, &str); 3] = [
    ("one letter of many", "a[ab]{590}[c-z]"),
    ("nested", "(a|b)*a(a|b){290}c"),
    ("words", "(\\w|a){20}[ab]{500}[c-z]"),
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let argument = std::env::args().skip(1).find_map(|text| text.parse().ok());
    let time = Duration::from_secs(argument.unwrap_or(10));
    let stack = Stack::start().await;
    let api = stack.api();
    let searched = expensive_run(&stack).await;
    let calm = others(&stack, time).await;
    say(format_args!("alone: {calm}"));
    for (name, expression) in EXPENSIVE {
        let mut searchers = JoinSet::new();
        for _ in 0..SEARCHERS {
            let api = stack.api();
            searchers.spawn(async move {
                loop {
                    search(&api, searched, expression).await;
                }
            });
        }
        let busy = others(&stack, time).await;
        searchers.shutdown().await;
        say(format_args!("beside {SEARCHERS} searches, {name}: {busy}"));
    }
    let mut delays = Vec::new();
    for _ in 0..LEAVERS {
        let left = timeout(LEAVE_AFTER, search(&api, searched, EXPENSIVE[0].1)).await;
        left.expect_err("an expensive search takes longer");
        let since = Instant::now();
        search(&api, searched, "c").await;
        delays.push(milliseconds(since));
    }
    let (median, longest) = (quantile(&delays, 0.5), quantile(&delays, 1.0));
    say(format_args!(
        "the next search, of all lines for one letter, after a client has left: p50 {median:.0} ms, longest {longest:.0} ms"
    ));
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}

async fn search(api: &Api, run: Uuid, expression: &str) {
    let encoded: String = expression
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    let path = format!("/v1/runs/{run}/search?regex={encoded}");
    let request = api.request(Method::GET, &path);
    // A search that waited for too long is refused, which is an answer as well.
    let answer = request.send().await.expect("an answer");
    answer.bytes().await.expect("a body");
}

/// A run of 64 lines of 60,000 letters, stored.
async fn expensive_run(stack: &Stack) -> Uuid {
    let run = stack.api().create_run("expensive").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut last = None;
    for _ in 0..64 {
        let letters = std::iter::repeat_with(|| if rand::random() { 'a' } else { 'b' });
        let line: String = letters.take(60_000).chain(['\n']).collect();
        last = Some(publisher.publish(&[output_line(&line)]).await);
    }
    stack
        .database
        .wait_stored(run.id, last.expect("lines"))
        .await;
    run.id
}

/// Latencies of a viewer and of `/healthz` for some time, as text.
async fn others(stack: &Stack, time: Duration) -> String {
    let run = stack.api().create_run("watched").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut viewer = stack.api().watch(run.id, None).await;
    let start = Instant::now();
    let publishing = tokio::spawn(async move {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while start.elapsed() < time {
            ticks.tick().await;
            let line = output_line(&start.elapsed().as_nanos().to_string());
            publisher.publish(&[line]).await;
        }
        publisher.publish(&[output_line("end")]).await;
    });
    let api = stack.api();
    let asking = tokio::spawn(async move {
        let (mut ticks, mut delays) = (interval(PERIOD), Vec::new());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while start.elapsed() < time {
            ticks.tick().await;
            let since = Instant::now();
            send(api.anonymous(Method::GET, "/healthz")).await;
            delays.push(milliseconds(since));
        }
        delays
    });
    let mut delays = Vec::new();
    loop {
        let event = viewer.next().await.json();
        match event["text"].as_str() {
            Some("end") => break,
            Some(text) => {
                let sent: u64 = text.parse().expect("nanoseconds");
                let sent = Duration::from_nanos(sent);
                delays.push(start.elapsed().saturating_sub(sent).as_secs_f64() * 1_000.0);
            }
            None => {}
        }
    }
    publishing.await.expect("published");
    let health = asking.await.expect("asked");
    format!(
        "viewer p50 {:.1} ms, p99 {:.1} ms ({} events); /healthz p50 {:.1} ms, p99 {:.1} ms ({})",
        quantile(&delays, 0.5),
        quantile(&delays, 0.99),
        delays.len(),
        quantile(&health, 0.5),
        quantile(&health, 0.99),
        health.len(),
    )
}
