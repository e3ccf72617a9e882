//! Publishing at a rate: the same messages to each side, in the way that its own publishers use.
//!
//! To Runcast by the append script: all due messages of a run in one call, and all runs in one
//! pipeline, as agents do. To the others by HTTP: one request per message, pipelined on one
//! keep-alive connection, with [`MAX_IN_FLIGHT_REQUESTS`] in flight at most. A message is stamped
//! with the time when it was due, so a late publisher does not hide its delay.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::protocol::limits::MAX_ENTRY_EVENTS;
use runcast_common::scripts::{Append, AppendAs, AppendOutcome, AppendReply, Cap};
use runcast_tests::stamp::{Stamp, message, now_ns};
use uuid::Uuid;

/// Most requests in flight.
const MAX_IN_FLIGHT_REQUESTS: u64 = 256;

/// Longest wait for a response.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(20);

/// Nanoseconds of a second: a minute of them, times the highest rate, is far below the maximum of
/// `u64`.
const SECOND_NS: u64 = 1_000_000_000;

/// Most messages of one call.
const MAX_MESSAGES_PER_CALL: usize = 4 * MAX_ENTRY_EVENTS;

/// A rate, and for how long at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Messages per second, over all channels.
    pub(crate) rate: u64,
    pub(crate) time: Duration,
    /// Shortest pause between two calls.
    pub(crate) tick: Duration,
}

/// What was published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    /// Messages.
    pub(crate) count: u64,
    pub(crate) took: Duration,
    /// Whether it was sent as fast as it was due.
    pub(crate) kept_pace: bool,
}

/// Publishes to the channels of one side, in turn.
pub(crate) struct Publisher {
    way: Transport,
    /// Number of the last message in each channel.
    last: Vec<u64>,
    /// The next channel.
    turn: usize,
}

enum Transport {
    Redis(ToRedis),
    Http(ToHttp),
}

impl Publisher {
    /// Publishes to runs over one connection, with the rights of a service: an agent has a user for
    /// each run.
    pub(crate) fn to_redis(url: &str, keys: &Keys, runs: &[Uuid]) -> Self {
        let client = redis::Client::open(url).expect("an address of Redis");
        let producers = runs.iter().map(|&run| Producer {
            keys: keys.run(run),
            id: Uuid::now_v7(),
            acked: 0,
            durable: 0,
        });
        let connection = client.get_connection().expect("a connection to Redis");
        connection
            .set_read_timeout(Some(RESPONSE_DEADLINE))
            .expect("a deadline");
        let way = Transport::Redis(ToRedis {
            connection,
            producers: producers.collect(),
        });
        Self::new(way, runs.len())
    }

    /// Publishes to channels of an HTTP server; each has the head of its requests, without
    /// `Content-Length`.
    pub(crate) fn to_http(address: SocketAddr, heads: Vec<String>) -> Self {
        let channels = heads.len();
        Self::new(Transport::Http(ToHttp::connect(address, heads)), channels)
    }

    fn new(way: Transport, channels: usize) -> Self {
        let last = vec![0; channels];
        Self { way, last, turn: 0 }
    }

    /// Number of the last message of the first channel, which has most of them.
    pub(crate) fn last(&self) -> u64 {
        self.last[0]
    }

    /// Number of the last message of the channel with fewest.
    pub(crate) fn min_message(&self) -> u64 {
        self.last.iter().copied().min().unwrap_or(0)
    }

    /// The number of channels.
    pub(crate) fn channels(&self) -> usize {
        self.last.len()
    }

    /// Publishes this many messages at once, and waits until they are accepted.
    pub(crate) fn burst(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let now = now_ns();
            let piece = left.min(MAX_MESSAGES_PER_CALL);
            self.send((0..piece).map(|_| now));
            left -= piece;
        }
        self.settle();
    }

    /// Publishes at a pace; calls `go_on` about every 50 ms.
    pub(crate) fn publish(
        &mut self,
        pace: Pace,
        mut go_on: impl FnMut(&Self) -> bool,
    ) -> Published {
        let due_ns = |number: u64| number * SECOND_NS / pace.rate;
        let (start, start_ns) = (Instant::now(), now_ns());
        let (mut sent, mut late) = (0u64, Duration::ZERO);
        let mut next_check = Duration::from_millis(50);
        while start.elapsed() < pace.time {
            let due = (now_ns() - start_ns) * pace.rate / SECOND_NS + 1;
            let most = due.min(sent + MAX_MESSAGES_PER_CALL as u64);
            if most > sent {
                self.send((sent..most).map(|number| start_ns + due_ns(number)));
                sent = most;
            }
            let next = Duration::from_nanos(due_ns(sent));
            late = start.elapsed().saturating_sub(next);
            if start.elapsed() > next_check {
                next_check = start.elapsed() + Duration::from_millis(50);
                if !go_on(self) {
                    break;
                }
            }
            let pause = next.saturating_sub(start.elapsed());
            if !pause.is_zero() {
                std::thread::sleep(pause.max(pace.tick));
            }
        }
        let took = start.elapsed();
        self.settle();
        Published {
            count: sent,
            took,
            kept_pace: late < Duration::from_millis(100),
        }
    }

    fn send(&mut self, moments: impl Iterator<Item = u64>) {
        let mut messages: Vec<Vec<Vec<u8>>> = vec![Vec::new(); self.last.len()];
        let mut order = Vec::new();
        for due_ns in moments {
            let channel = self.turn;
            self.turn = (channel + 1) % self.last.len();
            self.last[channel] += 1;
            let number = self.last[channel];
            messages[channel].push(message(Stamp { due_ns, number }));
            order.push(channel);
        }
        match &mut self.way {
            Transport::Redis(redis) => redis.send(&messages),
            Transport::Http(http) => http.send(&messages, &order),
        }
    }

    /// Waits for all responses.
    fn settle(&mut self) {
        if let Transport::Http(http) = &mut self.way {
            http.wait_for(0);
        }
    }
}

struct Producer {
    keys: RunKeys,
    id: Uuid,
    acked: u64,
    durable: u64,
}

struct ToRedis {
    connection: redis::Connection,
    producers: Vec<Producer>,
}

impl ToRedis {
    fn send(&mut self, messages: &[Vec<Vec<u8>>]) {
        let mut pipeline = redis::pipe();
        let mut batches = Vec::new();
        for (producer, lines) in self.producers.iter_mut().zip(messages) {
            for batch in lines.chunks(MAX_ENTRY_EVENTS) {
                let mut body = batch.join(&b'\n');
                body.push(b'\n');
                let append = Append {
                    producer: producer.id,
                    producer_epoch: 1,
                    base: producer.durable,
                    acked: producer.acked,
                    first: producer.acked + 1,
                    count: batch.len() as u64,
                    body: Body::compress(&body),
                    cap: Cap::default(),
                };
                pipeline.add_command(append.command(&producer.keys, AppendAs::Service));
                producer.acked += batch.len() as u64;
                batches.push((producer.keys.run, producer.acked));
            }
        }
        let replies: Vec<redis::Value> = match pipeline.query(&mut self.connection) {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                panic!("Redis does not know the append script: it is loaded before publishing")
            }
            replies => replies.expect("replies of Redis"),
        };
        for (reply, (run, stored)) in replies.into_iter().zip(batches) {
            let appended = AppendReply::parse(reply).expect("a reply of the append script");
            assert_eq!(
                appended.outcome,
                AppendOutcome::Stored { stored },
                "run {run}"
            );
            let producer = self.producers.iter_mut().find(|one| one.keys.run == run);
            let producer = producer.expect("one of the producers");
            producer.durable = producer.durable.max(appended.durable);
        }
    }
}

struct ToHttp {
    stream: TcpStream,
    heads: Vec<String>,
    sent: u64,
    answered: Arc<Responses>,
}

/// The responses so far.
#[derive(Default)]
struct Responses {
    yes: AtomicU64,
    /// The first error response.
    no: OnceLock<String>,
}

impl ToHttp {
    fn connect(address: SocketAddr, heads: Vec<String>) -> Self {
        let stream = TcpStream::connect(address).expect("a connection to publish on");
        stream.set_nodelay(true).expect("no delay");
        stream
            .set_write_timeout(Some(RESPONSE_DEADLINE))
            .expect("a deadline");
        let answered = Arc::new(Responses::default());
        let (reader, count) = (
            stream.try_clone().expect("its other half"),
            Arc::clone(&answered),
        );
        // Ends with the connection.
        std::thread::spawn(move || count_responses(reader, &count));
        Self {
            stream,
            heads,
            sent: 0,
            answered,
        }
    }

    fn send(&mut self, messages: &[Vec<Vec<u8>>], order: &[usize]) {
        let mut next = vec![0; messages.len()];
        for piece in order.chunks(64) {
            let mut requests = Vec::new();
            for &channel in piece {
                let message = &messages[channel][next[channel]];
                next[channel] += 1;
                let length = message.len();
                let head = &self.heads[channel];
                write!(requests, "{head}Content-Length: {length}\r\n\r\n").expect("memory");
                requests.extend_from_slice(message);
            }
            self.wait_for(MAX_IN_FLIGHT_REQUESTS);
            let written = self.stream.write_all(&requests);
            written.expect("the server accepts the requests");
            self.sent += piece.len() as u64;
        }
    }

    /// Waits until no more than this many requests are in flight.
    fn wait_for(&self, unanswered: u64) {
        let start = Instant::now();
        while self.sent - self.answered.yes.load(Ordering::Acquire) > unanswered {
            if let Some(answer) = self.answered.no.get() {
                panic!("the server refused a publish request: {answer}");
            }
            assert!(
                start.elapsed() < RESPONSE_DEADLINE,
                "{} of {} publish requests have a response",
                self.answered.yes.load(Ordering::Acquire),
                self.sent
            );
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for ToHttp {
    fn drop(&mut self) {
        // The reading thread holds the connection too.
        drop(self.stream.shutdown(std::net::Shutdown::Both));
    }
}

/// Counts successful responses, up to the first error.
fn count_responses(mut stream: TcpStream, responses: &Responses) {
    const STATUS_LINE_START: &[u8] = b"HTTP/1.1 ";
    let mut buffer = vec![0; 64 * 1024];
    let mut carried = 0;
    while let Ok(length @ 1..) = stream.read(&mut buffer[carried..]) {
        let end = carried + length;
        let mut yes = 0;
        for at in memchr::memmem::find_iter(&buffer[..end], STATUS_LINE_START) {
            match buffer[..end].get(at + STATUS_LINE_START.len()) {
                Some(b'2') => yes += 1,
                Some(_) => {
                    let answer = String::from_utf8_lossy(&buffer[at..end]).into_owned();
                    responses.no.get_or_init(|| answer);
                    return;
                }
                // Cut off before its status; it is counted at the next read.
                None => {}
            }
        }
        responses.yes.fetch_add(yes, Ordering::Release);
        carried = end.min(STATUS_LINE_START.len());
        buffer.copy_within(end - carried..end, 0);
    }
}
