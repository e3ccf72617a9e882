//! What goes out on lines has no other line ends: neither for clients that cut at every line end of
//! Unicode, nor for those that read numbers as text.

use reqwest::Method;
use reqwest::header::ACCEPT;
use runcast_tests::api::send;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::Stack;

/// Line ends of Python's `str.splitlines` beyond LF and CR.
const OTHER_LINE_ENDS: [char; 8] = [
    '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}',
];

/// A publisher that escapes nothing that JSON does not ask for.
const LINE: &str = "{\"kind\":\"log\",\"variation\":0,\"time\":1,\"text\":\"a\u{2028}b\u{85}c\u{2029}d\\u000c\\u001e\\n\",\
     \"\u{2028}\":\"name\",\"id\":\"forged\",\"n\":1610521604143693812,\"f\":1.0,\"z\":1e400}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_is_whole_for_every_reader_and_numbers_keep_their_digits() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("line ends").await;
    let mut publisher = Publisher::new(run.publisher_connection().await, stack.keys(), run.id);
    let end = br#"{"kind":"status","variation":0,"time":2,"status":"succeeded"}"#.to_vec();
    let last = publisher.publish(&[LINE.into(), end]).await;
    stack.database.wait_stored(run.id, last).await;

    let id = run.id.to_string();
    let mut sent = Vec::new();
    for path in [
        format!("/v1/runs/{id}/events"),
        format!("/v1/runs/{id}/events?before=end"),
    ] {
        let request = stack.api().request(Method::GET, &path);
        let answer = send(request.header(ACCEPT, "application/x-ndjson")).await;
        sent.push((path, answer.text().await.expect("text")));
    }
    let mut stream = stack.api().stream(run.id, None, "").await;
    let mut text = String::new();
    while !text.contains("succeeded") {
        let bytes = stream.chunk().await.expect("bytes").expect("more");
        text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
    }
    sent.push(("stream".to_owned(), text));
    let mut tail = stack.runcast(&["tail", "--json", &id], &[]);
    tail.wait_for_line("{\"kind\":\"status\"", WAIT_DEADLINE)
        .await;
    sent.push((
        "tail".to_owned(),
        String::from_utf8(tail.stdout()).expect("UTF-8"),
    ));
    for (from, text) in sent {
        assert!(!text.contains(OTHER_LINE_ENDS), "{from}: {text:?}");
        let escaped = r#""text":"a\u2028b\u0085c\u2029d\u000c\u001e\n","\u2028":"name""#;
        assert!(text.contains(escaped), "{from}: {text}");
        let numbers = r#""n":1610521604143693812,"f":1.0,"z":1e400"#;
        assert!(text.contains(numbers), "{from}: {text}");
    }
    // As text it is what was written.
    let request = stack
        .api()
        .request(Method::GET, &format!("/v1/runs/{id}/text"));
    let text = send(request).await.text().await.expect("text");
    assert_eq!(text, "a\u{2028}b\u{85}c\u{2029}d\x0c\x1e\n");
}
