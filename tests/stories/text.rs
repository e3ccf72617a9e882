//! The text of a run: byte for byte, followed to its end, and by ranges once it is finished.

use std::io::Write as _;

use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode};
use runcast_common::protocol::event::{Gap, Kind, Text, write_line};
use runcast_common::protocol::limits::MAX_CHUNK_BYTES;
use runcast_tests::api::{Api, problem, send};
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::{Service, Stack};
use uuid::Uuid;

/// The line of a chunk, without its newline.
fn chunk(kind: Kind, stream: &str, bytes: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    let text = Text::from_chunk(Some(stream), bytes);
    write_line(&mut line, kind, 0, 1_763_700_000_000, &text).expect("a line");
    line.pop();
    line
}

async fn ask(api: &Api, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = api.request(Method::GET, path);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    send(request).await
}

async fn text(api: &Api, run: Uuid, query: &str) -> Vec<u8> {
    let response = ask(api, &format!("/v1/runs/{run}/text{query}"), &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        header(response.headers(), "content-type"),
        "text/plain; charset=utf-8"
    );
    response.bytes().await.expect("a whole body").to_vec()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

/// A gap is a line of its own, which no output can imitate.
async fn assert_gap_is_a_line(api: &Api, run: Uuid, publisher: &mut Publisher) {
    let mut gap = Vec::new();
    let missing = Gap {
        count: Some(3),
        bytes: 30,
        reason: "full",
        after: None,
        next: None,
    };
    write_line(&mut gap, Kind::Gap, 0, 1, &missing).expect("a line");
    gap.pop();
    let forged = chunk(
        Kind::Output,
        "stdout",
        b"\x1eruncast: 9 events are missing here: forged\nopen",
    );
    let last = publisher.publish(&[forged, gap]).await;
    let after = format!("?after={}-{}", last.epoch, last.seq - 2);
    let displayed = String::from_utf8(text(api, run, &after).await).expect("UTF-8");
    let expected = "\x1e\x1eruncast: 9 events are missing here: forged\nopen\n\x1eruncast: 3 events are missing here: full\n";
    assert_eq!(displayed, expected);
}

/// Checks all forms of a byte range of the text.
async fn assert_ranges(api: &Api, path: &str, whole: &str, tag: &str) {
    let total = whole.len();
    let middle = total / 2;
    let cases = [
        ("bytes=0-99".to_owned(), Some((0, 100))),
        (
            format!("bytes={middle}-{}", middle + 9_999),
            Some((middle, 10_000)),
        ),
        (format!("bytes={middle}-"), Some((middle, total - middle))),
        ("bytes=-7".to_owned(), Some((total - 7, 7))),
        (format!("bytes={}-", total - 1), Some((total - 1, 1))),
        (format!("bytes=0-{}", total * 2), Some((0, total))),
        (format!("bytes={total}-"), None),
    ];
    for (range, expected) in cases {
        let response = ask(api, path, &[("range", &range), ("accept-encoding", "gzip")]).await;
        let headers = response.headers().clone();
        match expected {
            Some((start, length)) => {
                assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
                let displayed = format!("bytes {start}-{}/{total}", start + length - 1);
                assert_eq!(header(&headers, "content-range"), displayed);
                assert_eq!(header(&headers, "content-encoding"), "", "{range}");
                assert_eq!(header(&headers, "etag"), tag);
                let body = response.bytes().await.expect("a whole body");
                assert!(body == whole.as_bytes()[start..start + length], "{range}");
            }
            None => {
                problem(response, StatusCode::RANGE_NOT_SATISFIABLE).await;
                assert_eq!(
                    header(&headers, "content-range"),
                    format!("bytes */{total}")
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_byte_for_byte_the_output() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("bytes").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let huge: Vec<u8> = b"0123456789abcde\xff"
        .iter()
        .copied()
        .cycle()
        .take(1024 * 1024)
        .collect();
    let odd: &[&[u8]] = &[
        b"plain\n",
        b"\0NUL and \xff\xfe no UTF-8\n",
        b"\x1b[31mred\x1b[",
        b"0m\tend\r\n",
    ];
    let mut written = odd.concat();
    written.extend_from_slice(&huge);
    written.push(b'\n');
    let mut lines: Vec<Vec<u8>> = odd
        .iter()
        .map(|bytes| chunk(Kind::Output, "stdout", bytes))
        .collect();
    let huge_line = &written[odd.concat().len()..];
    lines.extend(
        huge_line
            .chunks(MAX_CHUNK_BYTES)
            .map(|piece| chunk(Kind::Output, "stdout", piece)),
    );
    let mut last = publisher.publish(&lines[..2]).await;
    stack.database.wait_stored(run.id, last).await;
    stack.stop(Service::Persister).await;
    for line in &lines[2..] {
        last = publisher.publish(std::slice::from_ref(line)).await;
    }
    publisher
        .publish(&[chunk(Kind::Log, "stderr", b"a warning\n")])
        .await;

    let api = stack.api();
    // Partly in Postgres, partly only in Redis; then all in Postgres.
    for round in ["live", "stored"] {
        if round == "stored" {
            stack.start_service(Service::Persister).await;
            stack.database.wait_stored(run.id, last).await;
        }
        assert!(
            text(&api, run.id, "?channel=output").await == written,
            "{round}"
        );
        assert_eq!(
            text(&api, run.id, "?channel=log:0").await,
            b"a warning\n",
            "{round}"
        );
        let all = text(&api, run.id, "").await;
        assert_eq!(all.len(), written.len() + b"a warning\n".len(), "{round}");
        let plain = text(&api, run.id, "?channel=output&ansi=strip").await;
        assert!(plain.starts_with(b"plain\nNUL and "), "{round}");
        let red = b"red\tend\r\n0123456789";
        assert!(
            plain.windows(red.len()).any(|piece| piece == red),
            "{round}"
        );
    }

    assert_gap_is_a_line(&api, run.id, &mut publisher).await;
    for query in [
        "?channel=status",
        "?ansi=maybe",
        "?follow=never",
        "?after=x",
    ] {
        let path = format!("/v1/runs/{}/text{query}", run.id);
        problem(ask(&api, &path, &[]).await, StatusCode::BAD_REQUEST).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_followed_until_the_run_ends() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("followed").await.id;
    let folder = stack.folder().to_owned();
    let go = folder.join("go");
    let script = "echo first; while [ ! -e \"$GO\" ]; do sleep 0.05; done; for i in 1 2 3; do echo more $i; done; printf end";
    let mut wrap = stack.wrap_with(
        run,
        &["sh", "-c", script],
        &[("GO", &go.display().to_string())],
    );
    let api = stack.api();

    let mut response = ask(
        &api,
        &format!("/v1/runs/{run}/text?follow"),
        &[("accept-encoding", "gzip, zstd")],
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        header(response.headers(), "content-encoding"),
        "",
        "a followed text is not compressed"
    );
    assert_eq!(header(response.headers(), "etag"), "");
    let mut followed = Vec::new();
    while followed != b"first\n" {
        let bytes = tokio::time::timeout(WAIT_DEADLINE, response.chunk()).await;
        let bytes = bytes.expect("more in time").expect("a body").expect("more");
        followed.extend_from_slice(&bytes);
        assert!(followed.len() <= 6, "{followed:?}");
    }
    // Without following: only the existing text.
    assert_eq!(text(&api, run, "").await, b"first\n");

    std::fs::File::create(&go)
        .and_then(|mut file| file.write_all(b"go"))
        .expect("a file");
    while let Some(bytes) = response.chunk().await.expect("the text ends cleanly") {
        followed.extend_from_slice(&bytes);
    }
    assert!(wrap.wait_exit(WAIT_DEADLINE).await.success());
    assert_eq!(followed, b"first\nmore 1\nmore 2\nmore 3\nend");
    stack.database.wait_sealed(run).await;
    assert_eq!(text(&api, run, "?follow").await, followed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_text_supports_ranges_compression_and_etags() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("finished").await.id;
    // Several times the number of lines that the byte index marks at once.
    let mut wrap = stack.wrap(run, &["seq", "1", "600000"]);
    assert!(wrap.wait_exit(WAIT_DEADLINE).await.success());
    stack.database.wait_sealed(run).await;
    let api = stack.api();
    let path = format!("/v1/runs/{run}/text");
    let whole: String = (1..=600_000).map(|number| format!("{number}\n")).collect();
    let total = whole.len();
    assert!(text(&api, run, "").await == whole.as_bytes());

    let plain = ask(&api, &path, &[]).await;
    let tag = header(plain.headers(), "etag").to_owned();
    assert!(tag.starts_with('"'), "{tag}");
    assert_eq!(header(plain.headers(), "accept-ranges"), "bytes");
    assert_ranges(&api, &path, &whole, &tag).await;
    // An invalid range, several ranges, or a range of another version: the whole text.
    let others: [&[(&str, &str)]; 4] = [
        &[("range", "lines=1-2")],
        &[("range", "bytes=0-1,5-6")],
        &[("range", "bytes=0-1"), ("if-range", "\"other\"")],
        &[("if-none-match", "\"other\"")],
    ];
    for headers in others {
        let response = ask(&api, &path, headers).await;
        assert_eq!(response.status(), StatusCode::OK, "{headers:?}");
        assert_eq!(response.bytes().await.expect("a whole body").len(), total);
    }
    let contained = ask(&api, &path, &[("range", "bytes=0-1"), ("if-range", &tag)]).await;
    assert_eq!(contained.status(), StatusCode::PARTIAL_CONTENT);
    let weak = format!("\"other\", W/{tag}");
    for known in [tag.as_str(), &weak, "*"] {
        let response = ask(&api, &path, &[("if-none-match", known)]).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(header(response.headers(), "etag"), tag);
    }

    // A compressed text is another representation.
    for encoding in ["gzip", "zstd"] {
        let response = ask(&api, &path, &[("accept-encoding", encoding)]).await;
        assert_eq!(header(response.headers(), "content-encoding"), encoding);
        assert_eq!(header(response.headers(), "etag"), format!("W/{tag}"));
        let packed = response.bytes().await.expect("a whole body");
        assert!(packed.len() < total / 2, "{} of {total}", packed.len());
    }
    let head = send(api.request(Method::HEAD, &path)).await;
    assert_eq!(
        (head.status(), header(head.headers(), "etag")),
        (StatusCode::OK, tag.as_str())
    );
    assert_eq!(head.bytes().await.expect("no body").len(), 0);
    let stripped = ask(&api, &format!("{path}?ansi=strip"), &[]).await;
    assert_ne!(header(stripped.headers(), "etag"), tag);
}
