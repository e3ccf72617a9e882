//! Events/s of a publisher, in memory and with the spool, compared with the raw append script.
//!
//! The raw side sends prepared bodies, plain and packed, with as many events as a batch of the
//! publisher has, through the same script and client, with as many calls in flight. Both are
//! measured from the first call to the last acknowledgement, alternating, several times; meanwhile
//! everything is declared stored and trimmed, as a persister would do. Processor time is that of
//! this process and that of Redis, per event.

use std::time::Instant;

use futures::{StreamExt as _, stream};
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::event::{self, Kind, Text};
use runcast_common::protocol::keys::Keys;
use runcast_common::protocol::limits::MAX_ENTRY_EVENTS;
use runcast_common::redis::Value;
use runcast_common::scripts::{Append, AppendAs, AppendOutcome, AppendReply, Cap, load_append};
use runcast_publisher::Publisher;
use uuid::Uuid;

use crate::measure::{self, EVENT_BYTES, cpu, median, say, spread};
use crate::server::{PATIENCE, Server, options, spool_folder};

/// Events per round: a second or two.
pub(crate) const ROUND_EVENTS: u64 = 3000 * MAX_ENTRY_EVENTS as u64;

pub(crate) const TOTAL_ROUNDS: usize = 5;

/// Raw calls in flight: as many as a publisher has.
const IN_FLIGHT_CALLS: usize = 8;

/// The results of one way of publishing, per round.
#[derive(Default)]
struct Way {
    events_per_second: Vec<f64>,
    own_us: Vec<f64>,
    redis_us: Vec<f64>,
}

/// Readings of all clocks.
struct Clocks {
    wall: Instant,
    own: f64,
    redis: f64,
}

impl Clocks {
    fn read(server: &Server) -> Self {
        Self {
            wall: Instant::now(),
            own: cpu(std::process::id()).as_secs_f64(),
            redis: cpu(server.id()).as_secs_f64(),
        }
    }
}

impl Way {
    fn add(&mut self, server: &Server, start: &Clocks) {
        let (end, events) = (Clocks::read(server), ROUND_EVENTS as f64);
        let wall = end.wall - start.wall;
        self.events_per_second.push(events / wall.as_secs_f64());
        self.own_us.push((end.own - start.own) * 1e6 / events);
        self.redis_us.push((end.redis - start.redis) * 1e6 / events);
    }

    fn print(&self, name: &str, raw: &Self) {
        let thousands: Vec<f64> = self
            .events_per_second
            .iter()
            .map(|each| each / 1e3)
            .collect();
        // Compare neighbouring rounds: a disturbance mostly affects both.
        let pairs = self.events_per_second.iter().zip(&raw.events_per_second);
        let ratios: Vec<f64> = pairs.map(|(own, raw)| own / raw).collect();
        say(format_args!(
            "| {name} | {} | {:.2} | {:.2} | {:.2} |",
            spread(&thousands, 0),
            median(&ratios),
            median(&self.own_us),
            median(&self.redis_us),
        ));
    }
}

pub(crate) async fn run() {
    let server = Server::start().await;
    let [mut raw, mut packed, mut memory, mut spooled]: [Way; 4] = Default::default();
    // One round to warm up pages, caches and the allocator.
    appended(&server, &mut Way::default(), false).await;
    published(&server, &mut Way::default(), false).await;
    let mut written = Vec::new();
    for _ in 0..TOTAL_ROUNDS {
        appended(&server, &mut raw, false).await;
        appended(&server, &mut packed, true).await;
        published(&server, &mut memory, false).await;
        published(&server, &mut spooled, true).await;
        written.push(write_lines());
    }
    say(format_args!(
        "\nThroughput: {ROUND_EVENTS} events of {EVENT_BYTES} B a round, {TOTAL_ROUNDS} rounds in turn, median (least .. most)\n"
    ));
    say(format_args!(
        "| | thousand events/s | ratio to raw | own CPU us/event | CPU us/event of Redis |\n|---|---|---|---|---|"
    ));
    raw.print("raw append script, bodies made before", &raw);
    packed.print("the same, bodies packed before", &raw);
    memory.print("publisher, in memory", &raw);
    spooled.print("publisher, spool, synced every 200 ms", &raw);
    say(format_args!(
        "| lines written and nothing else, one thread | {} | | | |",
        spread(&written, 0)
    ));
}

/// The script alone.
async fn appended(server: &Server, way: &mut Way, packed: bool) {
    let target = server.target();
    let keys = Keys::new(&target.prefix).run(target.run);
    let producer = Uuid::now_v7();
    let texts = measure::texts();
    let lines = texts.iter().map(|text| measure::line(Kind::Output, text));
    let lines: Vec<u8> = lines.take(MAX_ENTRY_EVENTS).flatten().collect();
    let body = if packed {
        Body::compress(&lines)
    } else {
        Body::Plain(&lines)
    };
    let connection = server.redis().dedicated(keys.slot).await;
    let mut connection = connection.expect("a connection");
    let loaded = load_append(&mut connection).await;
    loaded.expect("the server takes the script");
    let settling = server.keep_settled(target.run, producer);

    let start = Clocks::read(server);
    let firsts = stream::iter((1..=ROUND_EVENTS).step_by(MAX_ENTRY_EVENTS));
    let calls = firsts.map(|first| {
        let append = Append {
            producer,
            producer_epoch: 1,
            base: 0,
            acked: 0,
            first,
            count: MAX_ENTRY_EVENTS as u64,
            body: body.clone(),
            cap: Cap::default(),
        };
        let command = append.command(&keys, AppendAs::RunUser);
        let mut connection = connection.clone();
        async move { command.query_async::<Value>(&mut connection).await }
    });
    let mut answers = calls.buffered(IN_FLIGHT_CALLS);
    while let Some(answer) = answers.next().await {
        let appended = answer.and_then(AppendReply::parse).expect("an answer");
        let stored = matches!(appended.outcome, AppendOutcome::Stored { .. });
        assert!(stored, "{appended:?}");
    }
    way.add(server, &start);
    settling.abort();
}

/// The publisher, called as a program would.
async fn published(server: &Server, way: &mut Way, with_spool: bool) {
    let folder = with_spool.then(spool_folder);
    let target = server.target();
    let publisher = Publisher::start(&target, options(folder.as_ref())).expect("started");
    publisher.connected(PATIENCE).await.expect("connected");
    assert_eq!(publisher.spool().is_some(), with_spool);
    let settling = server.keep_settled(target.run, publisher.producer().0);
    let texts = measure::texts();

    let start = Clocks::read(server);
    for (_, text) in (0..ROUND_EVENTS).zip(texts.iter().cycle()) {
        publisher.output(text).await.expect("published");
    }
    publisher.flush(PATIENCE).await.expect("flushed");
    way.add(server, &start);
    let closed = publisher.close(PATIENCE).await.expect("closed");
    assert_eq!((closed.stored, closed.unsent), (ROUND_EVENTS, 0));
    settling.abort();
}

/// The cost of writing the lines, without queue, spool and Redis: thousand events/s.
fn write_lines() -> f64 {
    let texts = measure::texts();
    let mut next = texts.iter().cycle();
    let mut payload = Text::default();
    let mut lines = Vec::with_capacity(EVENT_BYTES * MAX_ENTRY_EVENTS);
    let start = Instant::now();
    for number in 0..ROUND_EVENTS {
        if number % MAX_ENTRY_EVENTS as u64 == 0 {
            std::hint::black_box(&lines);
            lines.clear();
        }
        payload.text = next.next().map(String::as_str);
        event::write_line(&mut lines, Kind::Output, 0, event::now_ms(), &payload).expect("a line");
    }
    ROUND_EVENTS as f64 / start.elapsed().as_secs_f64() / 1e3
}
