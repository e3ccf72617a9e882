//! A fake gateway: it sends one prepared response per connection, and records the requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Serves the responses in order; it ends after the last one.
pub(crate) struct Gateway {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Sends each response unchanged, and closes its connection. But a stream that consists of its
    /// head alone stays open, like one that a proxy buffers. Heartbeats come at any time: they are
    /// answered beside the responses, and not recorded.
    pub(crate) fn answering(responses: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        thread::spawn(move || {
            let mut open_streams = Vec::new();
            for response in responses {
                let (stream, request) = loop {
                    let (stream, _peer) = listener.accept().expect("a connection");
                    let request = read_request(&stream);
                    if !is_heartbeat(&request) {
                        break (stream, request);
                    }
                    drop((&stream).write_all(json("204 No Content", "").as_bytes()));
                };
                record.lock().expect("not poisoned").push(request);
                // The client may have disconnected already.
                drop((&stream).write_all(response.as_bytes()));
                if response == self::stream("") {
                    open_streams.push(stream);
                }
            }
        });
        Self { url, asked }
    }

    /// The head and body of each request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn is_heartbeat(request: &str) -> bool {
    let path = request.split(' ').nth(1).unwrap_or_default();
    path.contains("/heartbeats")
}

fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    let mut length = 0;
    loop {
        let start = request.len();
        reader.read_line(&mut request).expect("a line");
        let line = request[start..].trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    request.push_str(&String::from_utf8(body).expect("text"));
    request
}

/// A response with a JSON body.
pub(crate) fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// An event stream that ends with its connection: the head, and this text.
pub(crate) fn stream(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{text}")
}
