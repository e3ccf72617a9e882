//! Messages at a steady pace, and the time of each to each viewer.

use std::time::Duration;

use runcast_tests::crowd::Histogram;

use crate::measure::{median, say, spread};
use crate::publish::Pace;
use crate::side::{Name, Side};
use crate::{CROWD_DEADLINE, Scale, connect_crowd, whole};

/// Channels of the part with many of them, and viewers of each.
const RUN_COUNT: usize = 100;
const VIEWERS_OF_A_RUN: usize = 10;

/// How long a pace is kept before counting starts.
const WARM_UP: Duration = Duration::from_millis(500);

/// The measurements of a side.
#[derive(Clone, Copy)]
struct Load {
    channels: usize,
    viewers: usize,
    /// Messages per second, over all channels.
    rate: u64,
}

/// One channel with many viewers.
pub(crate) async fn latency(scale: Scale) {
    let load = Load {
        channels: 1,
        viewers: scale.viewers,
        rate: 100,
    };
    say(format_args!(
        "\nLatency: {} viewers of one channel, 100 messages/s",
        scale.viewers
    ));
    table(&Name::ALL, load, scale).await;
}

/// Many channels with few viewers.
pub(crate) async fn runs(scale: Scale) {
    let load = Load {
        channels: RUN_COUNT,
        viewers: RUN_COUNT * VIEWERS_OF_A_RUN,
        rate: 5_000,
    };
    say(format_args!(
        "\nRuns: {RUN_COUNT} channels with {VIEWERS_OF_A_RUN} viewers each, 5,000 messages/s over all"
    ));
    table(&Name::ALL, load, scale).await;
}

async fn table(names: &[Name], load: Load, scale: Scale) {
    let mut figures = vec![[const { Vec::new() }; 3]; names.len()];
    let mut notes = Vec::new();
    for _ in 0..scale.rounds {
        for (&name, [p50, p99, cpu]) in names.iter().zip(&mut figures) {
            match round(name, load, scale.time).await {
                Ok(round) => {
                    p50.push(round.durations.quantile_ms(0.5));
                    p99.push(round.durations.quantile_ms(0.99));
                    cpu.push(round.cpu_us);
                    notes.extend(round.late.map(|late| format!("{name}: {late}")));
                }
                Err(reason) => notes.push(format!("{name}, failed: {reason}")),
            }
        }
    }
    say(format_args!(
        "{} rounds of {:?} in turn, from when a message was due until it was read, median (least .. most)\n\n\
         | | p50 ms | p99 ms | p99 beside Runcast | CPU us/delivery |\n|---|---|---|---|---|",
        scale.rounds, scale.time
    ));
    let own = median(&figures[0][1]);
    for (name, [p50, p99, cpu]) in names.iter().zip(&figures) {
        say(format_args!(
            "| {name} | {} | {} | {:.2} | {:.2} |",
            spread(p50, 2),
            spread(p99, 2),
            median(p99) / own,
            median(cpu),
        ));
    }
    for note in notes {
        say(format_args!("\n{note}"));
    }
}

/// The result of one round.
struct Round {
    durations: Histogram,
    /// Microseconds of the server's CPU time per delivery.
    cpu_us: f64,
    /// Set when messages were sent later than they were due; latencies include that delay.
    late: Option<String>,
}

async fn round(name: Name, load: Load, time: Duration) -> Result<Round, String> {
    let mut side = Side::start(name, load.channels).await;
    let crowd = connect_crowd(&mut side, load.viewers, true)?;
    let mut pace = Pace {
        rate: load.rate,
        time: WARM_UP,
        tick: Duration::ZERO,
    };
    side.publisher.publish(pace, |_| true);
    crowd.wait_all_received(side.publisher.min_message(), CROWD_DEADLINE)?;
    drop(crowd.take_latencies());
    let before = side.cpu();
    pace.time = time;
    let published = side.publisher.publish(pace, |_| true);
    crowd.wait_all_received(side.publisher.min_message(), CROWD_DEADLINE)?;
    let cpu = side.cpu().saturating_sub(before);
    whole(&crowd, load.viewers)?;
    let late = (!published.kept_pace).then(|| {
        let (count, took) = (published.count, published.took);
        format!("the publisher came late: {count} messages in {took:.1?}")
    });
    let durations = crowd.take_latencies();
    Ok(Round {
        cpu_us: cpu.as_secs_f64() * 1e6 / durations.total() as f64,
        durations,
        late,
    })
}
