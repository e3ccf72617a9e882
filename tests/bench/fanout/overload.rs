//! More than can be delivered: what it costs a server in memory, what it does to its viewers, and
//! whether they still receive everything.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use runcast_tests::crowd::{Crowd, CrowdPlan};

use crate::measure::{quantile, rss_kib, say};
use crate::publish::Pace;
use crate::side::{Name, Side};
use crate::{CROWD_DEADLINE, Scale};

const MESSAGES_PER_SECOND: u64 = 4_000;

pub(crate) async fn overload(scale: Scale) {
    say(format_args!(
        "\nOverload: {} viewers of one channel, {MESSAGES_PER_SECOND} messages/s for {:?}; RSS of the server while it lasts, MiB; viewers \
         of Runcast come back as they are told to, those of the others have no way to\n\n\
         | | RSS before | median | most | after | deliveries/s while it lasts | p50 ms | p99 ms | streams ended | `closing` told \
         | until all have all, s | missing or double |\n|---|---|---|---|---|---|---|---|---|---|---|---|",
        scale.viewers, scale.overload
    ));
    for name in [Name::Runcast, Name::DurableStreams] {
        if let Err(reason) = play(name, scale).await {
            say(format_args!(
                "| {name} | failed: {reason} | | | | | | | | | | |"
            ));
        }
    }
}

async fn play(name: Name, scale: Scale) -> Result<(), String> {
    let mut side = Side::start(name, 1).await;
    let crowd = Crowd::start(CrowdPlan {
        viewers: scale.viewers,
        address: side.address,
        request: side.request(),
        first: Box::new(|_| 1),
        reconnects: name == Name::Runcast,
        max_connecting: 256,
        record_all: true,
    });
    crowd.wait_all_open(CROWD_DEADLINE)?;
    let pace = Pace {
        rate: MESSAGES_PER_SECOND,
        time: scale.overload,
        tick: Duration::from_millis(1),
    };
    let used = RefCell::new(Vec::new());
    let processes = side.processes();
    let mib = || processes.iter().map(|&id| rss_kib(id)).sum::<f64>() / 1024.0;
    let before = mib();
    side.publisher.publish(pace, |_| {
        used.borrow_mut().push(mib());
        true
    });
    let delivered = crowd.counts().messages as f64 / scale.overload.as_secs_f64();
    let start = Instant::now();
    let last = side.publisher.last();
    let caught_up = crowd.wait_until(CROWD_DEADLINE, |crowd| {
        let mut used = used.borrow_mut();
        // Not at each check: it is free for the server, but not for this process.
        if start.elapsed() > Duration::from_millis(100) * u32::try_from(used.len()).unwrap_or(1) {
            used.push(mib());
        }
        crowd.min_message() >= last
    });
    let caught_up = match caught_up {
        Ok(took) => format!("{:.1}", took.as_secs_f64()),
        Err(_late) => format!(
            "{} of {} after {CROWD_DEADLINE:?}",
            crowd.viewers_at(last),
            scale.viewers
        ),
    };
    let (sums, durations, used) = (crowd.counts(), crowd.take_latencies(), used.into_inner());
    say(format_args!(
        "| {name} | {before:.0} | {:.0} | {:.0} | {:.0} | {delivered:.0} | {:.0} | {:.0} | {} | {} | {caught_up} | {} |",
        quantile(&used, 0.5),
        quantile(&used, 1.0),
        mib(),
        durations.quantile_ms(0.5),
        durations.quantile_ms(0.99),
        sums.ended,
        sums.closing,
        sums.sequence_errors + sums.gaps,
    ));
    if let Some(trouble) = crowd.first_error() {
        say(format_args!("\n{name}, what was seen first: {trouble}\n"));
    }
    Ok(())
}
