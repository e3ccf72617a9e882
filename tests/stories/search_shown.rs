//! Search finds what is shown: JSON log lines, rows that were overwritten, rows of many events, and
//! composed characters; in both directions, with cursors that miss and repeat nothing.

use runcast_common::protocol::event::{Kind, Text, write_line};
use runcast_tests::api::Api;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;
use uuid::Uuid;

/// What the command of the first story writes: printed by `sh`, so `\\` is one backslash.
const SCRIPT: &str = r#"
printf '%s\n' '{"level":"info","msg":"caf\u00e9 d\u00e9j\u00e0 \u6f22\u5b57 \"quoted\"","status":500,"id":1610521604143693812}'
printf '%s\n' '{"note":"na\u00efve"}'
printf 'abcdef\rXYZ\n100 of 200\r200 of 200\n'
printf 'name\033[10Cvalue\n10%%\033[3D20%%\n'
printf 'cafe\314\201 decomposed\n'
printf '\357\273\277{"level":"error","msg":"behind a mark"}\n'
printf 'conn'; seq -f 'line %g' 400 >&2; printf 'ected\n'
"#;

async fn found(api: &Api, run: Uuid, query: &[(&str, &str)]) -> Value {
    let mut url = reqwest::Url::parse("http://host").expect("a URL");
    url.query_pairs_mut().extend_pairs(query);
    let query = url.query().unwrap_or_default();
    api.get(&format!("/v1/runs/{run}/search?{query}")).await
}

fn matches(answer: &Value) -> Vec<(String, String)> {
    let word = |found: &Value, name: &str| found[name].as_str().expect("a text").to_owned();
    let matches = answer["matches"].as_array().expect("matches");
    matches
        .iter()
        .map(|found| (word(found, "id"), word(found, "text")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_what_the_page_shows() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("shown").await.id;
    let mut wrap = stack.wrap(run, &["bash", "-c", SCRIPT]);
    wrap.wait_exit(WAIT_DEADLINE).await;
    stack.database.wait_sealed(run).await;
    let record = "café déjà 漢字 \"quoted\" status=500 id=1610521604143693812";
    for (name, text, shown) in [
        ("q", "café d", record),
        ("q", "cafe\u{301} d", "café decomposed"),
        ("regex", "^café déjà", record),
        ("q", "漢字", record),
        ("q", "\"quoted\"", record),
        ("q", "status=500", record),
        ("q", "id=1610521604143693812", record),
        ("q", "naïve", "{\"note\":\"naïve\"}"),
        ("q", "XYZdef", "XYZdef"),
        // What was overwritten was written, too.
        ("q", "abcdef", "abcdef\rXYZ"),
        ("regex", "^200", "200 of 200"),
        ("q", "name          value", "name          value"),
        ("regex", "^20%$", "20%"),
        ("regex", "^behind a mark$", "behind a mark"),
        ("q", "connected", "connected"),
    ] {
        let mut ids = Vec::new();
        for direction in [("after", "0-0"), ("before", "end")] {
            let answer = found(&stack.api(), run, &[(name, text), direction]).await;
            let all = matches(&answer);
            let texts: Vec<&str> = all.iter().map(|(_, text)| text.as_str()).collect();
            match text {
                // Both spellings are the same text, so both lines match.
                "café d" | "cafe\u{301} d" => assert_eq!(texts.len(), 2, "{text}: {texts:?}"),
                _ => assert_eq!(texts, [shown], "{text}"),
            }
            ids.push(all.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
        }
        ids[1].reverse();
        assert_eq!(ids[0], ids[1], "{text}");
    }
    // The level of a line behind a byte order mark was found too.
    let error = found(&stack.api(), run, &[("q", "mark"), ("level", "error")]).await;
    assert_eq!(matches(&error).len(), 1);
}

/// A chunk of one of the streams.
fn chunk(kind: Kind, stream: &str, text: &str) -> Vec<u8> {
    let mut line = Vec::new();
    let payload = Text::from_chunk(Some(stream), text.as_bytes());
    write_line(&mut line, kind, 0, 1, &payload).expect("a line");
    line.pop();
    line
}

/// Three streams whose lines are cut anywhere, and one line that lies open over all of them.
/// Returns the chunks, and the lines by the index of the chunk that each began with.
fn interleaved() -> (Vec<Vec<u8>>, Vec<(usize, String)>) {
    let mut random = 7_u64;
    let mut below = move |limit: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(random >> 33).expect("small") % limit
    };
    let streams = [(Kind::Output, "a"), (Kind::Output, "b"), (Kind::Log, "c")];
    let mut chunks = vec![chunk(Kind::Output, "open", "needle 0")];
    let mut lines = vec![(0, "needle 0 at last".to_owned())];
    let mut open: [Option<usize>; 3] = [None; 3];
    let mut number = 0;
    while chunks.len() < 4_000 {
        let stream = below(3);
        let (kind, name) = streams[stream];
        let at = chunks.len();
        let mut text = String::new();
        for _ in 0..=below(3) {
            match open[stream].take() {
                // Some lines stay open for a while.
                Some(line) if below(8) == 0 || stream == 2 && below(40) > 0 => {
                    lines[line].1.push('.');
                    text.push('.');
                    open[stream] = Some(line);
                    break;
                }
                Some(_) => text.push('\n'),
                None => {
                    number += 1;
                    let line = format!("need{}le {number}", if below(3) == 0 { "-" } else { "" });
                    text.push_str(&line);
                    lines.push((at, line));
                    open[stream] = Some(lines.len() - 1);
                }
            }
        }
        chunks.push(chunk(kind, name, &text));
    }
    for (kind, name) in streams {
        chunks.push(chunk(kind, name, "\n"));
    }
    chunks.push(chunk(Kind::Output, "open", " at last\n"));
    (chunks, lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_over_many_events_are_found_once_from_page_to_page() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("joined").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let (chunks, lines) = interleaved();
    let (stored, live) = chunks.split_at(2_500);
    let mut last = None;
    for entry in stored.chunks(500) {
        last = Some(publisher.publish(entry).await);
    }
    let last = last.expect("entries");
    stack.database.wait_stored(run.id, last).await;
    stack.stop(Service::Persister).await;
    for entry in live.chunks(500) {
        publisher.publish(entry).await;
    }
    let expected: Vec<(String, String)> = lines
        .into_iter()
        .filter(|(_, line)| line.starts_with("needle"))
        .map(|(at, line)| (format!("{}-{}", last.epoch, at + 1), line))
        .collect();
    assert!(expected.len() > 500, "{}", expected.len());
    for (direction, start, limit) in [
        ("after", "0-0", "500"),
        ("after", "0-0", "7"),
        ("before", "end", "500"),
        ("before", "end", "7"),
    ] {
        let (mut cursor, mut all) = (start.to_owned(), Vec::new());
        loop {
            let query = [("q", "needle"), ("limit", limit), (direction, &cursor)];
            let answer = found(&stack.api(), run.id, &query).await;
            all.extend(matches(&answer));
            let next = answer["cursor"].as_str().expect("a cursor").to_owned();
            if answer["done"] == true {
                break;
            }
            assert_ne!(next, cursor, "{direction} {limit}");
            cursor = next;
        }
        if direction == "before" {
            all.reverse();
        }
        let differs = all
            .iter()
            .zip(&expected)
            .find(|(found, expected)| found != expected);
        assert_eq!(differs, None, "{direction} {limit}");
        assert_eq!(all.len(), expected.len(), "{direction} {limit}");
    }
    stack.start_service(Service::Persister).await;
}
