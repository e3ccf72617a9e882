//! From publishing an event to its acknowledgement by Redis, as the publisher observes it, at 100
//! events a second.
//!
//! Measured twice, since a publisher lets events that closely follow many others linger: at an even
//! pace, and at random moments (exponential gaps of the same mean, so that every second event
//! follows within 7 ms). Compared with the raw append script at the same even pace, with one event
//! per call.

use std::time::Duration;

use rand::RngExt as _;
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::keys::Keys;
use runcast_common::scripts::{Append, AppendAs, Cap, load_append};
use runcast_publisher::Publisher;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::measure::{self, quantile, say};
use crate::server::{PATIENCE, Server, options, spool_folder};

/// Mean time between two events.
const MEAN_GAP: Duration = Duration::from_millis(10);

const TOTAL_EVENTS: u64 = 1000;

pub(crate) async fn run() {
    let server = Server::start().await;
    say(format_args!(
        "\nLatency to Redis' acknowledgement, {TOTAL_EVENTS} events at 100 a second, ms\n"
    ));
    say(format_args!("| | p50 | p99 | most |\n|---|---|---|---|"));
    print("raw append script, even pace", &raw(&server).await);
    for with_spool in [false, true] {
        for even in [true, false] {
            let waits = published(&server, with_spool, even).await;
            let spool = if with_spool { "spool" } else { "in memory" };
            let pace = if even { "even pace" } else { "random moments" };
            print(&format!("publisher, {spool}, {pace}"), &waits);
        }
    }
}

/// Prints a row of the table.
pub(crate) fn print(name: &str, waits: &[f64]) {
    let [middle, late, most] = [0.5, 0.99, 1.0].map(|share| quantile(waits, share));
    say(format_args!(
        "| {name} | {middle:.2} | {late:.2} | {most:.2} |"
    ));
}

async fn raw(server: &Server) -> Vec<f64> {
    let target = server.target();
    let keys = Keys::new(&target.prefix).run(target.run);
    let connection = server.redis().dedicated(keys.slot).await;
    let mut connection = connection.expect("a connection");
    let loaded = load_append(&mut connection).await;
    loaded.expect("the server takes the script");
    let (producer, body) = (
        Uuid::now_v7(),
        measure::line(Kind::Output, &measure::texts()[0]),
    );
    let mut waits = Vec::new();
    let mut at = Instant::now();
    for first in 1..=TOTAL_EVENTS {
        sleep_until(at).await;
        let append = Append {
            producer,
            producer_epoch: 1,
            base: 0,
            acked: 0,
            first,
            count: 1,
            body: Body::Plain(&body),
            cap: Cap::default(),
        };
        let start = Instant::now();
        let answer = append.call(&keys, AppendAs::RunUser, &mut connection).await;
        answer.expect("an answer");
        waits.push(start.elapsed().as_secs_f64() * 1e3);
        at += MEAN_GAP;
    }
    waits
}

async fn published(server: &Server, with_spool: bool, even: bool) -> Vec<f64> {
    let folder = with_spool.then(spool_folder);
    let target = server.target();
    let publisher = Publisher::start(&target, options(folder.as_ref())).expect("started");
    publisher.connected(PATIENCE).await.expect("connected");
    let settling = server.keep_settled(target.run, publisher.producer().0);
    let waits = acknowledgements(&publisher, even).await;
    publisher.close(PATIENCE).await.expect("closed");
    settling.abort();
    waits
}

/// How long each event took until its acknowledgement, in ms.
pub(crate) async fn acknowledgements(publisher: &Publisher, even: bool) -> Vec<f64> {
    let texts = measure::texts();
    let mut waiting = JoinSet::new();
    let mut at = Instant::now();
    for (_, text) in (0..TOTAL_EVENTS).zip(texts.iter().cycle()) {
        sleep_until(at).await;
        let start = Instant::now();
        publisher.output(text).await.expect("published");
        let publisher = publisher.clone();
        waiting.spawn(async move {
            publisher.flush(PATIENCE).await.expect("flushed");
            start.elapsed().as_secs_f64() * 1e3
        });
        at += if even {
            MEAN_GAP
        } else {
            MEAN_GAP.mul_f64(-rand::rng().random_range(f64::MIN_POSITIVE..1.0).ln())
        };
    }
    waiting.join_all().await
}
