//! All viewers reconnect at once, to a gateway that has just started with an empty cache, while the
//! run continues.
//!
//! Nine of ten viewers are up to [`SHORT_LAG_EVENTS`] events behind; each tenth up to
//! [`LONG_LAG_EVENTS`], more than Redis keeps, so that it starts in Postgres.

use std::cell::Cell;
use std::time::{Duration, Instant};

use runcast_tests::crowd::{Crowd, CrowdPlan};
use runcast_tests::stack::Service;

use crate::measure::say;
use crate::publish::Pace;
use crate::side::Side;
use crate::{CROWD_DEADLINE, Scale, whole};

const SHORT_LAG_EVENTS: u64 = 1_000;
const LONG_LAG_EVENTS: u64 = 20_000;

/// Messages per second that arrive meanwhile.
const MESSAGES_PER_SECOND: u64 = 100;

pub(crate) async fn storm(scale: Scale) {
    let mut side = Side::runcast(1, &[Service::Gateway, Service::Persister]).await;
    let events = LONG_LAG_EVENTS + SHORT_LAG_EVENTS;
    side.publisher
        .burst(usize::try_from(events).expect("a small number"));
    let run = side.runs[0];
    let stack = side.stack();
    stack.database.wait_stored_events(run, events).await;
    let epoch = stack.database.run(run).await.watermark.epoch;
    stack.kill(Service::Gateway);
    stack.start_service(Service::Gateway).await;
    side.look_up();

    // Spread evenly, and identical in every run of the benchmark.
    let seen = move |viewer: usize| {
        let scattered = (viewer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let most = if viewer.is_multiple_of(10) {
            LONG_LAG_EVENTS
        } else {
            SHORT_LAG_EVENTS
        };
        events - 1 - scattered % most
    };
    let total: u64 = (0..scale.returning)
        .map(|viewer| events - seen(viewer))
        .sum();
    let request = side.request();
    let crowd = Crowd::start(CrowdPlan {
        viewers: scale.returning,
        address: side.address,
        request: Box::new(move |viewer, cursor| {
            let first = format!("{epoch}-{}", seen(viewer));
            request(viewer, Some(cursor.unwrap_or(&first)))
        }),
        first: Box::new(move |viewer| seen(viewer) + 1),
        reconnects: true,
        max_connecting: scale.returning,
        record_all: false,
    });
    let start = Instant::now();
    let (half, all) = (Cell::new(None), Cell::new(None));
    let pace = Pace {
        rate: MESSAGES_PER_SECOND,
        time: CROWD_DEADLINE,
        tick: Duration::ZERO,
    };
    side.publisher.publish(pace, |_| {
        let there = crowd.viewers_at(events);
        if half.get().is_none() && there >= scale.returning / 2 {
            half.set(Some(start.elapsed()));
        }
        if there == scale.returning {
            all.set(Some(start.elapsed()));
        }
        all.get().is_none()
    });
    let last = side.publisher.last();
    let verdict = crowd
        .wait_all_received(last, CROWD_DEADLINE)
        .and_then(|_| whole(&crowd, scale.returning));
    let seconds = |took: Option<Duration>| took.map_or(f64::NAN, |took| took.as_secs_f64());
    say(format_args!(
        "\nStorm: {} viewers come back at once to a gateway that has just started, {total} events behind together, while \
         {MESSAGES_PER_SECOND} messages/s come\n\n\
         | streams open after, p99, s | half have caught up, s | all have, s | events/s | streams ended | whole |\n|---|---|---|---|---|---|\n\
         | {:.1} | {:.1} | {:.1} | {:.0} | {} | {} |",
        scale.returning,
        crowd.open_times().quantile_ms(0.99) / 1e3,
        seconds(half.get()),
        seconds(all.get()),
        total as f64 / seconds(all.get()),
        crowd.counts().ended,
        verdict
            .err()
            .unwrap_or_else(|| "all received, each event once".to_owned()),
    ));
}
