//! Search in a whole run: lines split over chunks, both directions, stored and unstored events, and
//! its limits.

use reqwest::{Method, StatusCode};
use runcast_common::protocol::event::{Kind, Text, write_line};
use runcast_common::protocol::event_id::EventId;
use runcast_tests::api::{Api, problem, send};
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use serde_json::{Value, json};
use uuid::Uuid;

fn log(level: &str, text: &str) -> Vec<u8> {
    let mut line = Vec::new();
    let payload = Text {
        level: Some(level),
        ..Text::from_chunk(Some("stderr"), text.as_bytes())
    };
    write_line(&mut line, Kind::Log, 0, 1, &payload).expect("a line");
    line.pop();
    line
}

async fn found(api: &Api, run: Uuid, query: &str) -> Value {
    api.get(&format!("/v1/runs/{run}/search?{query}")).await
}

fn texts(response: &Value) -> Vec<&str> {
    let matches = response["matches"].as_array().expect("matches");
    matches
        .iter()
        .map(|found| found["text"].as_str().expect("a text"))
        .collect()
}

/// Checks filters by level and channel, and lines of context.
async fn assert_filters(api: &Api, run: Uuid, all: &[&str; 4]) {
    assert_eq!(texts(&found(api, run, "q=needle").await), all[1..]);
    assert_eq!(
        texts(&found(api, run, "q=needle&level=error").await),
        all[1..2]
    );
    assert_eq!(
        texts(&found(api, run, "q=needle&channel=output").await),
        all[3..]
    );
    assert_eq!(
        texts(&found(api, run, "q=needle&channel=output:1").await),
        [""; 0]
    );
    let context = found(api, run, "regex=^line%203000$&context=2").await;
    assert_eq!(
        context["matches"][0]["before"],
        json!(["line 2998", "line 2999"])
    );
    assert_eq!(
        context["matches"][0]["after"],
        json!(["the Needle is here", "needle of an error"])
    );
}

/// Page by page, in both directions, nothing is missed or returned twice.
async fn assert_pages_are_complete(api: &Api, run: Uuid) {
    for (direction, start) in [("after", "0-0"), ("before", "end")] {
        let (mut cursor, mut seen) = (start.to_owned(), Vec::new());
        for _ in 0..30 {
            let query = format!("regex=7\\d*7$&limit=13&{direction}={cursor}");
            let response = found(api, run, &query).await;
            seen.extend(texts(&response).into_iter().map(str::to_owned));
            cursor = response["cursor"].as_str().expect("a cursor").to_owned();
            if response["done"] == true {
                break;
            }
        }
        if direction == "before" {
            seen.reverse();
        }
        let numbers = (1..=6_000).map(|number: u32| number.to_string());
        let fits = |text: &String| {
            text.len() > 1 && text.ends_with('7') && text[..text.len() - 1].contains('7')
        };
        let expected: Vec<String> = numbers
            .filter(fits)
            .map(|text| format!("line {text}"))
            .collect();
        assert_eq!(seen, expected, "{direction}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_finds_lines_in_any_store_and_across_chunks() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("search").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let api = stack.api();
    let output = |text: &str| runcast_tests::event_lines::output_line(text);
    for entry in numbered_lines("line", 1..=3_000).chunks(500) {
        publisher.publish(entry).await;
    }
    let cut = [
        output("the \u{1b}[1mNee"),
        log("error", "needle of an error\n"),
        log("info", "needle of no interest\n"),
        output("dle\u{1b}[0m is here\nnext\n"),
    ];
    let stored = publisher.publish(&cut).await;
    stack.database.wait_stored(run.id, stored).await;
    stack.stop(Service::Persister).await;
    for entry in numbered_lines("line", 3_001..=6_000).chunks(500) {
        publisher.publish(entry).await;
    }
    publisher
        .publish(&[
            output("a needle that is only in Redis\n"),
            output("and an unfinished nee"),
        ])
        .await;

    let all = [
        "the Needle is here",
        "needle of an error",
        "needle of no interest",
        "a needle that is only in Redis",
    ];
    let forward = found(&api, run.id, "q=NEEDLE&ignore_case").await;
    assert_eq!(texts(&forward), all);
    assert_eq!(forward["matches"][0]["places"], json!([[4, 10]]));
    let first = EventId::new(stored.epoch, 3_001).to_string();
    assert_eq!(forward["matches"][0]["id"], first);
    assert_eq!(forward["done"], true);
    let backward = found(&api, run.id, "q=NEEDLE&ignore_case&before=end").await;
    assert_eq!(
        texts(&backward),
        all.iter().rev().copied().collect::<Vec<_>>()
    );
    assert_eq!(backward["done"], true);

    assert_filters(&api, run.id, &all).await;
    assert_pages_are_complete(&api, run.id).await;

    // A line that was incomplete is found once it is finished, from where the search stopped.
    let before = found(&api, run.id, "q=unfinished%20needle").await;
    assert_eq!(texts(&before), [""; 0]);
    let cursor = before["cursor"].as_str().expect("a cursor").to_owned();
    publisher.publish(&[output("dle\n")]).await;
    let after = found(
        &api,
        run.id,
        &format!("q=unfinished%20needle&after={cursor}"),
    )
    .await;
    assert_eq!(texts(&after), ["and an unfinished needle"]);
    stack.start_service(Service::Persister).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_searches_are_refused_with_the_reason() {
    let stack = Stack::start().await;
    let run = stack.api().create_run("refused").await.id;
    let long = format!("q={}", "x".repeat(1_001));
    for (query, words) in [
        ("", "q= or regex="),
        ("q=a&regex=b", "not both"),
        ("regex=a(b", "unclosed group at character 2"),
        ("regex=(%5Cw{900}){900}", "too large"),
        ("regex=a[ab]{2000}[c-z]", "too large"),
        ("regex=(a|b)*a(a|b){5000}c", "too large"),
        ("regex=(?=a)", "look-around"),
        (&long, "over the limit of 1000"),
        ("q=a&channel=status", "has no text"),
        ("q=a&after=1-1&before=end", "not both"),
        ("q=a&before=x", "event id"),
    ] {
        let path = format!("/v1/runs/{run}/search?{query}");
        let response = send(stack.api().request(Method::GET, &path)).await;
        let detail = problem(response, StatusCode::BAD_REQUEST).await;
        assert!(detail.contains(words), "{query}: {detail}");
    }
    let response = found(&stack.api(), run, "q=nothing").await;
    assert_eq!(
        (response["done"].clone(), response["matches"].clone()),
        (json!(true), json!([]))
    );
}

/// An expression that takes many seconds for the lines of the run, and a tenth of one for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expensive_search_ends_with_its_time_its_client_and_the_gateway() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("expensive").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let mut random = 1_u64;
    let mut line = || -> String {
        let letters = std::iter::repeat_with(|| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            if random >> 63 == 0 { 'a' } else { 'b' }
        });
        letters.take(30_000).chain(['\n']).collect()
    };
    let mut last = None;
    for _ in 0..150 {
        last = Some(
            publisher
                .publish(&[runcast_tests::event_lines::output_line(&line())])
                .await,
        );
    }
    stack
        .database
        .wait_stored(run.id, last.expect("lines"))
        .await;
    let api = stack.api();
    // An answer in parts: each goes on where the one before has ended.
    let expensive = "regex=a[ab]{150}[c-z]";
    let first = found(&api, run.id, expensive).await;
    let cursor = first["cursor"].as_str().expect("a cursor");
    assert_eq!((&first["done"], texts(&first).len()), (&json!(false), 0));
    let second = found(&api, run.id, &format!("{expensive}&after={cursor}")).await;
    assert_eq!(second["done"], false);
    assert_ne!(second["cursor"], cursor);
    // A client that has gone leaves no search behind that others wait for.
    for _ in 0..20 {
        let search = found(&api, run.id, expensive);
        tokio::select! {
            biased;
            _ = search => panic!("an expensive search has ended at once"),
            () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
        }
    }
    let cheap = found(&api, run.id, "q=c").await;
    assert_eq!(cheap["done"], true);
    // Nor does a gateway wait for one.
    let path = format!("/v1/runs/{}/search?{expensive}", run.id);
    let search = tokio::spawn(api.request(Method::GET, &path).send());
    tokio::task::yield_now().await;
    stack.stop(Service::Gateway).await;
    drop(search.await);
}
