//! Several runs on one connection, and the feed of all runs.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use runcast_tests::api::{CreatedRun, send};
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually, within};
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::Stack;
use serde_json::{Value, json};

use crate::fanout::{frames, last_line, publisher};

/// Reads a stream of several runs until this many frames have arrived, or it ends.
async fn watch(
    stack: &Stack,
    query: &str,
    cursor: Option<&str>,
    count: usize,
) -> Vec<(String, Value, String)> {
    let mut request = stack
        .api()
        .request(Method::GET, &format!("/v1/watch?{query}"));
    if let Some(cursor) = cursor {
        request = request.header("last-event-id", cursor);
    }
    let mut response = send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut text = String::new();
    within(WAIT_DEADLINE, "enough frames of a watch", async {
        while frames(&text).len() < count {
            match response.chunk().await.expect("read") {
                Some(bytes) => text += std::str::from_utf8(&bytes).expect("text"),
                None => break,
            }
        }
    })
    .await;
    let mut frames = frames(&text);
    frames.truncate(count);
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_runs_share_a_connection_and_resume() {
    let stack = Stack::start().await;
    let mut runs = Vec::new();
    for name in ["one", "two", "three"] {
        let run = stack.api().create_run(name).await;
        runs.push((run.id, publisher(&stack, &run).await));
    }
    for (_, publisher) in &mut runs[..2] {
        publisher.publish(&numbered_lines("line", 1..=50)).await;
    }
    let query: Vec<String> = runs.iter().map(|(run, _)| format!("run={run}")).collect();
    let query = query.join("&");
    // Disconnects after every frame: the next frame of each run must follow.
    let mut seen: HashMap<String, Vec<u64>> = HashMap::new();
    let mut cursor: Option<String> = None;
    for cut in [1, 3, 20, 30, 7] {
        for (_, data, id) in watch(&stack, &query, cursor.as_deref(), cut).await {
            assert!(id.starts_with('w') && id.len() < 64, "{id}");
            cursor = Some(id);
            if let Some(seq) = data["seq"].as_u64() {
                let run = data["run"].as_str().expect("a run").to_owned();
                seen.entry(run).or_default().push(seq);
            }
        }
    }
    for (_, publisher) in &mut runs {
        publisher.publish(&numbered_lines("line", 51..=60)).await;
        publisher.publish(&[last_line(0)]).await;
    }
    let mut ends = Vec::new();
    for (event, data, id) in watch(&stack, &query, cursor.as_deref(), usize::MAX).await {
        cursor = Some(id);
        if event == "end" {
            ends.push(data["run"].as_str().map(str::to_owned));
        } else if let Some(seq) = data["seq"].as_u64() {
            let run = data["run"].as_str().expect("a run").to_owned();
            seen.entry(run).or_default().push(seq);
        }
    }
    assert_eq!(ends.len(), 4, "each run, and then all of them: {ends:?}");
    assert_eq!(ends.last(), Some(&None));
    for ((run, _), max) in runs.iter().zip([61, 61, 11]) {
        assert_eq!(seen[&run.to_string()], (1..=max).collect::<Vec<_>>());
    }
    let again = stack
        .api()
        .request(Method::GET, &format!("/v1/watch?{query}"));
    let again = send(again.header("last-event-id", cursor.expect("a cursor"))).await;
    assert_eq!(again.status(), StatusCode::NO_CONTENT);
    for (query, expected) in [
        ("", "give either run=ID"),
        ("run=x", "no run"),
        ("label=x", "NAME=VALUE"),
        (&format!("run={}&after=1-2", runs[0].0), "expected a cursor"),
    ] {
        let response = send(
            stack
                .api()
                .request(Method::GET, &format!("/v1/watch?{query}")),
        )
        .await;
        assert!(response.status().is_client_error(), "{query}");
        let detail = response.text().await.expect("a body");
        assert!(detail.contains(expected), "{query}: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_runs_with_the_label_join_a_watch() {
    let stack = Stack::start().await;
    let create = async |team: &str| {
        let described = json!({"name": "labelled", "labels": {"team": team}});
        stack.api().create(&described).await.id
    };
    let (first, other) = (create("search").await, create("other").await);
    let mut response = send(
        stack
            .api()
            .request(Method::GET, "/v1/watch?label=team=search"),
    )
    .await;
    let second = create("search").await;
    for run in [first, other, second] {
        let redis = stack.redis.connection().await;
        Publisher::new(redis, stack.keys(), run)
            .publish(&numbered_lines("line", 1..=1))
            .await;
    }
    let mut text = String::new();
    eventually("both runs are listed", async || {
        if let Ok(Ok(Some(bytes))) =
            tokio::time::timeout(Duration::from_secs(1), response.chunk()).await
        {
            text += std::str::from_utf8(&bytes).expect("text");
        }
        let outputs = frames(&text)
            .into_iter()
            .filter(|(event, _, _)| event == "output");
        let mut runs: Vec<String> = outputs
            .map(|(_, data, _)| data["run"].to_string())
            .collect();
        runs.sort();
        let mut expected = [first, second].map(|run| format!("\"{run}\""));
        expected.sort();
        (runs == expected)
            .then_some(())
            .ok_or_else(|| format!("{runs:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feed_reports_every_run_and_resumes() {
    let stack = Stack::start().await;
    let mut feed = send(stack.api().request(Method::GET, "/v1/feed")).await;
    assert_eq!(feed.status(), StatusCode::OK);
    let mut text = String::new();
    let mut received = async |what: &str, run: &CreatedRun, target: &str| {
        eventually(what, async || {
            let chunk = tokio::time::timeout(Duration::from_secs(1), feed.chunk());
            if let Ok(Ok(Some(bytes))) = chunk.await {
                text += std::str::from_utf8(&bytes).expect("text");
            }
            let id = run.id.to_string();
            let mut received = frames(&text)
                .into_iter()
                .filter(|(event, data, _)| event == "state" && data["run"] == id.as_str());
            let found = received.find(|(_, data, _)| data["status"] == target);
            found.map(|(_, _, id)| id).ok_or_else(|| text.clone())
        })
        .await
    };
    let first = stack.api().create_run("first").await;
    // The first heartbeats may have been sent before the gateway subscribed; once it has, it misses
    // none.
    eventually("the gateway subscribes", async || {
        let mut redis = stack.redis.connection().await;
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("NUMSUB").arg(stack.keys().updates());
        let (_, listeners): (String, u64) = ask.query_async(&mut redis).await.expect("a response");
        (listeners > 0)
            .then_some(())
            .ok_or_else(|| "no gateway subscribes".to_owned())
    })
    .await;
    let second = stack.api().create_run("second").await;
    let created = received("a new run is announced", &second, "pending").await;
    let mut publisher = publisher(&stack, &first).await;
    publisher.publish(&[last_line(0)]).await;
    received("its end is announced", &first, "succeeded").await;
    // From that cursor the same frames come again, and none before.
    let ask = |id: &str| {
        let request = stack.api().request(Method::GET, "/v1/feed");
        request.header("last-event-id", id.to_owned())
    };
    let mut again = send(ask(&created)).await;
    let mut text = String::new();
    within(WAIT_DEADLINE, "events since then", async {
        while !text.contains("succeeded") {
            let bytes = again.chunk().await.expect("read").expect("more");
            text += std::str::from_utf8(&bytes).expect("text");
        }
    })
    .await;
    assert!(
        !text.contains("pending") && !text.contains("event: gap"),
        "{text}"
    );
    let mut late = send(ask("1-1")).await;
    let mut text = String::new();
    within(WAIT_DEADLINE, "a gap", async {
        while !text.contains("event: gap") {
            let bytes = late.chunk().await.expect("read").expect("more");
            text += std::str::from_utf8(&bytes).expect("text");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watchers_of_a_label_cost_postgres_what_one_does() {
    const WATCHERS: usize = 60;
    let stack = Stack::start().await;
    let described = json!({"name": "labelled", "labels": {"team": "search"}});
    stack.api().create(&described).await;
    let watch = async || {
        let request = stack
            .api()
            .request(Method::GET, "/v1/watch?label=team=search");
        let response = send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        response
    };
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        watchers.push(watch().await);
    }
    let scans = async || {
        let query = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'runs'";
        stack.database.query_number(query).await
    };
    let seconds = async || {
        stack
            .database
            .query_number("SELECT extract(epoch FROM now())::bigint")
            .await
    };
    let wait = async |time: i64| {
        let since = seconds().await;
        eventually("rounds of lookups pass", async || {
            let passed = seconds().await - since;
            (passed >= time).then_some(()).ok_or(passed.to_string())
        })
        .await;
    };
    // Postgres counts late what it has scanned for the requests.
    wait(3).await;
    let before = scans().await;
    wait(7).await;
    // Each watcher alone would have looked three times.
    let grown = scans().await - before;
    assert!(
        grown < WATCHERS as i64,
        "{grown} scans of the table of runs"
    );
    drop(watchers);
}
