//! A stand-in for the gateway: answers each connection as the test has written down, and keeps what
//! it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Answers connections in order; it ends with the last answer.
pub(crate) struct Gateway {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Each answer is sent as it is, and the connection closed behind it; but a stream of which there is
    /// only the head stays open, as one that something in between holds back.
    pub(crate) fn answering(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&asked);
        thread::spawn(move || {
            let mut held = Vec::new();
            for answer in answers {
                let (stream, _peer) = listener.accept().expect("a connection");
                let request = read_request(&stream);
                keep.lock().expect("not poisoned").push(request);
                // A client that has read enough may be gone.
                drop((&stream).write_all(answer.as_bytes()));
                if answer == self::stream("") {
                    held.push(stream);
                }
            }
        });
        Self { url, asked }
    }

    /// Head and body of each request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
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

/// An answer with a JSON body.
pub(crate) fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The head of an event stream that ends with its connection, and what it says.
pub(crate) fn stream(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{text}")
}
