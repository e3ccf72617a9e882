//! Clients that send the same request again and again, each on a connection of its own, as fast as
//! they get responses.
//!
//! They read just enough of a response to find its end, so that they cost less than the server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use runcast_tests::crowd::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a response.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(30);

/// The result.
pub(crate) struct RequestCounts {
    /// Responses per second.
    pub(crate) rate: f64,
    pub(crate) times: Histogram,
}

/// Lets this many clients send this request for some time; each response must have this status.
pub(crate) async fn ask(
    address: SocketAddr,
    request: &str,
    status: u16,
    clients: usize,
    time: Duration,
) -> RequestCounts {
    let mut sockets = Vec::with_capacity(clients);
    for _ in 0..clients {
        let socket = TcpStream::connect(address).await.expect("a connection");
        socket.set_nodelay(true).expect("no delay");
        sockets.push(socket);
    }
    let end = Instant::now() + time;
    let asking = sockets.into_iter().map(|socket| {
        let request = request.to_owned();
        tokio::spawn(async move { one(socket, &request, status, end).await })
    });
    let asking: Vec<_> = asking.collect();
    let mut times = Histogram::default();
    for client in asking {
        for took in client.await.expect("a client") {
            times.record(took);
        }
    }
    RequestCounts {
        rate: times.total() as f64 / time.as_secs_f64(),
        times,
    }
}

/// Nanoseconds of each response that arrived in time.
async fn one(mut socket: TcpStream, request: &str, status: u16, end: Instant) -> Vec<u64> {
    let head = format!("HTTP/1.1 {status} ");
    let (mut times, mut received) = (Vec::new(), Vec::with_capacity(4096));
    loop {
        let began = Instant::now();
        socket
            .write_all(request.as_bytes())
            .await
            .expect("the request is sent");
        let answering = answer(&mut socket, &mut received);
        timeout(RESPONSE_DEADLINE, answering)
            .await
            .expect("a response in time");
        assert!(
            received.starts_with(head.as_bytes()),
            "{}",
            String::from_utf8_lossy(&received)
        );
        let now = Instant::now();
        if now > end {
            return times;
        }
        times.push(u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Reads one response by the length in its head.
async fn answer(socket: &mut TcpStream, received: &mut Vec<u8>) {
    received.clear();
    loop {
        let read = socket.read_buf(received).await.expect("a response");
        assert!(read > 0, "the gateway closed the connection");
        let text = String::from_utf8_lossy(received);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .expect("a length");
        if body.len() >= length.parse().expect("a number") {
            return;
        }
    }
}
