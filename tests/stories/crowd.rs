//! The crowd of the harness detects missing messages. If it did not, its stories would pass.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use runcast_tests::crowd::{Crowd, CrowdCounts, CrowdPlan};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::programs::loopback;
use runcast_tests::stamp::{Stamp, message};

/// Frames of messages with these numbers.
fn frames(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let frame = |number| {
        let line = message(Stamp { due_ns: 1, number });
        let line = String::from_utf8(line).expect("an event is text");
        format!("event: output\ndata: {line}\nid: 7-{number}\n\n")
    };
    let frames: String = numbers.into_iter().map(frame).collect();
    frames.into_bytes()
}

/// The pieces as chunks of a response, with or without the final chunk.
fn chunked(pieces: &[&[u8]], ends: bool) -> Vec<u8> {
    let mut response =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for piece in pieces {
        response.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        response.extend_from_slice(piece);
        response.extend_from_slice(b"\r\n");
    }
    if ends {
        response.extend_from_slice(b"0\r\n\r\n");
    }
    response
}

/// Serves each response to one connection, in writes of this size. Returns the requests.
fn serve(responses: Vec<Vec<u8>>, bytes: usize) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(loopback(0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let serving = std::thread::spawn(move || {
        let serve = |response: Vec<u8>| {
            let (mut stream, _) = listener.accept().expect("a viewer");
            stream.set_nodelay(true).expect("no delay");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).expect("a request");
            for piece in response.chunks(bytes) {
                stream.write_all(piece).expect("a connection");
            }
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        responses.into_iter().map(serve).collect()
    });
    (port, serving)
}

fn watch(port: u16, reconnects: bool) -> Crowd {
    Crowd::start(CrowdPlan {
        viewers: 1,
        address: loopback(port),
        request: Box::new(|_, cursor| {
            let cursor = cursor.unwrap_or("none");
            format!("GET / HTTP/1.1\r\nLast-Event-ID: {cursor}\r\n\r\n")
        }),
        first: Box::new(|_| 1),
        reconnects,
        max_connecting: 1,
        record_all: false,
    })
}

async fn sees(crowd: &Crowd, what: &str, enough: impl Fn(&CrowdCounts) -> bool) -> CrowdCounts {
    eventually(what, async || {
        let sums = crowd.counts();
        enough(&sums)
            .then_some(sums)
            .ok_or_else(|| format!("{crowd:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowd_parses_responses_cut_anywhere() {
    let body = frames(1..=20);
    // Chunks that end within frames, and writes that end within anything.
    let pieces: Vec<&[u8]> = body.chunks(97).collect();
    for bytes in [1, 7, 4096] {
        for reconnects in [false, true] {
            let (port, serving) = serve(vec![chunked(&pieces, false)], bytes);
            let crowd = watch(port, reconnects);
            let sums = sees(&crowd, "20 messages", |sums| sums.messages == 20).await;
            assert_eq!(
                (sums.opened, sums.sequence_errors),
                (1, 0),
                "{:?}",
                crowd.first_error()
            );
            assert_eq!(crowd.min_message(), 20);
            serving.join().expect("the server");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowd_detects_missing_doubled_and_swapped_messages() {
    for numbers in [
        vec![1, 3],
        vec![1, 1],
        vec![2, 1],
        vec![1, 2, 4, 3, 5],
        vec![2, 3],
    ] {
        let (port, serving) = serve(vec![chunked(&[&frames(numbers.clone())], true)], 4096);
        let crowd = watch(port, false);
        let sums = sees(&crowd, "the end", |sums| sums.ended == 1).await;
        assert_ne!(sums.sequence_errors, 0, "{numbers:?}");
        assert_eq!(sums.messages, numbers.len() as u64);
        serving.join().expect("the server");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowd_reconnects_with_last_complete_frame() {
    let mut cut = [&b"retry: 10\n"[..], &frames(1..=3)].concat();
    // Its id is there, but the empty line after it is not.
    cut.pop();
    let closing = b"retry: 10\nevent: closing\ndata: {}\nid: 7-4\n\n";
    let end = chunked(&[&frames(3..=4), closing], true);
    let rest = chunked(&[&frames(5..=5)], false);
    let (port, serving) = serve(vec![chunked(&[&cut], false), end, rest], 4096);
    let crowd = watch(port, true);
    let sums = sees(&crowd, "all five", |sums| sums.messages == 5).await;
    assert_eq!(
        (sums.sequence_errors, sums.opened, sums.closing),
        (0, 3, 1),
        "{:?}",
        crowd.first_error()
    );
    let requested = tokio::time::timeout(
        WAIT_DEADLINE,
        tokio::task::spawn_blocking(|| serving.join()),
    );
    let requested = requested
        .await
        .expect("in time")
        .expect("a thread")
        .expect("the server");
    for (request, cursor) in requested.iter().zip(["none", "7-2", "7-4"]) {
        assert!(
            request.contains(&format!("Last-Event-ID: {cursor}\r\n")),
            "{request}"
        );
    }
}
