//! Everybody comes back at once, to a gateway that has just started and holds nothing, while the run goes on.
//!
//! Nine of ten viewers are up to [`SHORT`] events behind; each tenth up to [`LONG`], more than Redis keeps, so that it begins
//! in Postgres.

use std::cell::Cell;
use std::time::{Duration, Instant};

use runcast_tests::crowd::{Crowd, CrowdPlan};
use runcast_tests::stack::Service;

use crate::measure::say;
use crate::publish::Pace;
use crate::side::Side;
use crate::{PATIENCE, Scale, whole};

const SHORT: u64 = 1_000;
const LONG: u64 = 20_000;

/// Messages a second that come meanwhile.
const RATE: u64 = 100;

pub(crate) async fn storm(scale: Scale) {
    let mut side = Side::runcast(1, &[Service::Gateway, Service::Persister]).await;
    let events = LONG + SHORT;
    side.publisher
        .burst(usize::try_from(events).expect("a small number"));
    let run = side.runs[0];
    let stack = side.stack();
    stack.database.wait_stored_events(run, events).await;
    let epoch = stack.database.run(run).await.watermark.epoch;
    stack.kill(Service::Gateway);
    stack.start_service(Service::Gateway).await;
    side.look_up();

    // Spread evenly, and the same in every run of the benchmark.
    let seen = move |viewer: usize| {
        let scattered = (viewer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let most = if viewer.is_multiple_of(10) {
            LONG
        } else {
            SHORT
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
        rate: RATE,
        time: PATIENCE,
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
        .wait_all_received(last, PATIENCE)
        .and_then(|_| whole(&crowd, scale.returning));
    let seconds = |took: Option<Duration>| took.map_or(f64::NAN, |took| took.as_secs_f64());
    say(format_args!(
        "\nStorm: {} viewers come back at once to a gateway that has just started, {total} events behind together, while \
         {RATE} messages/s come\n\n\
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
            .unwrap_or_else(|| "yes, each event once".to_owned()),
    ));
}
