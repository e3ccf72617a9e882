//! The best sustained deliveries/s: the rate grows fourfold until a viewer falls behind, then a
//! search narrows the limit down.
//!
//! A rate is sustained if all of it was published on time, and all viewers have everything at most
//! [`MAX_DELAY`] after the last message. A side that has failed is restarted, with a new crowd.

use std::time::Duration;

use runcast_tests::crowd::Crowd;

use crate::measure::{median, say, spread};
use crate::publish::Pace;
use crate::side::{Name, Side};
use crate::{Scale, connect_crowd, whole};

/// Longest delay of a viewer.
const MAX_DELAY: Duration = Duration::from_millis(250);

/// Messages per second of the first trial.
const FIRST_RATE: u64 = 100;

/// No publisher here is faster.
const MAX_MESSAGES_PER_SECOND: u64 = 200_000;

/// The search ends when the failed rate is at most this many percent of the sustained one.
const NEAR_PERCENT: u64 = 120;

/// How long a rate is kept.
fn time(scale: Scale) -> Duration {
    scale.time * 2 / 3
}

/// The result of one rate.
#[derive(Debug, Clone, Copy)]
struct Sustained {
    rate: u64,
    /// Deliveries per second.
    deliveries: f64,
    /// Microseconds of the server's CPU time per delivery.
    cpu_us: f64,
    p99_ms: f64,
}

pub(crate) async fn throughput(scale: Scale) {
    let sides = Name::ALL;
    // Each search is a series of trials, so two of them are enough.
    let rounds = scale.rounds.min(2);
    let mut figures = vec![Vec::new(); sides.len()];
    let mut limits = Vec::new();
    for _ in 0..rounds {
        for (&name, best) in sides.iter().zip(&mut figures) {
            let (sustained, limit) = search(name, scale).await;
            best.extend(sustained);
            limits.push(format!("{name}: {limit}"));
        }
    }
    say(format_args!(
        "\nThroughput: {} viewers of one channel, the best rate that is sustained for {:?}, {rounds} searches in turn, \
         median (least .. most)\n\n\
         | | thousand deliveries/s | beside Runcast | messages/s | CPU us/delivery | p99 ms there |\n|---|---|---|---|---|---|",
        scale.viewers,
        time(scale)
    ));
    let column = |best: &[Sustained], of: fn(&Sustained) -> f64| -> Vec<f64> {
        best.iter().map(of).collect()
    };
    let own = median(&column(&figures[0], |one| one.deliveries));
    for (name, best) in sides.iter().zip(&figures) {
        let deliveries = column(best, |one| one.deliveries / 1e3);
        say(format_args!(
            "| {name} | {} | {:.2} | {:.0} | {:.2} | {:.0} |",
            spread(&deliveries, 0),
            median(&deliveries) * 1e3 / own,
            median(&column(best, |one| one.rate as f64)),
            median(&column(best, |one| one.cpu_us)),
            median(&column(best, |one| one.p99_ms)),
        ));
    }
    say(format_args!("\nWhat ended the searches:\n"));
    for limit in limits {
        say(format_args!("- {limit}"));
    }
}

/// The best sustained rate, if any, and why the next one failed.
async fn search(name: Name, scale: Scale) -> (Option<Sustained>, String) {
    let mut best: Option<Sustained> = None;
    let mut failed = (
        u64::MAX,
        "nothing; the publisher's limit was reached".to_owned(),
    );
    let mut pitch: Option<(Side, Crowd)> = None;
    let mut rate = FIRST_RATE;
    while rate <= MAX_MESSAGES_PER_SECOND
        && best.is_none_or(|best| failed.0 > best.rate * NEAR_PERCENT / 100)
    {
        let (mut side, crowd) = match pitch.take() {
            Some(pitch) => pitch,
            None => {
                let mut side = Side::start(name, 1).await;
                match connect_crowd(&mut side, scale.viewers, false) {
                    Ok(crowd) => (side, crowd),
                    Err(reason) => return (best, reason),
                }
            }
        };
        match trial(&mut side, &crowd, rate, scale) {
            Ok(sustained) => {
                best = Some(sustained);
                pitch = Some((side, crowd));
            }
            Err(reason) => failed = (rate, format!("{rate} messages/s: {reason}")),
        }
        rate = match best {
            // Not even the first one.
            None => return (None, failed.1),
            Some(best) if failed.0 < u64::MAX => (best.rate * failed.0).isqrt(),
            Some(best) => best.rate * 4,
        };
    }
    (best, failed.1)
}

fn trial(side: &mut Side, crowd: &Crowd, rate: u64, scale: Scale) -> Result<Sustained, String> {
    let pace = Pace {
        rate,
        time: time(scale),
        tick: Duration::from_millis(1),
    };
    // Half a second is no longer a passing delay.
    let behind = rate / 2 + 10;
    drop(crowd.take_latencies());
    let (before, first) = (side.cpu(), side.publisher.last());
    let published = side.publisher.publish(pace, |publisher| {
        crowd.min_message() + behind >= publisher.last()
    });
    let late = crowd.wait_all_received(side.publisher.last(), MAX_DELAY)?;
    let cpu = side.cpu().saturating_sub(before);
    whole(crowd, scale.viewers)?;
    let count = side.publisher.last() - first;
    if !published.kept_pace {
        let took = published.took;
        return Err(format!("only {count} were published in {took:?}"));
    }
    let deliveries = count as f64 * scale.viewers as f64;
    Ok(Sustained {
        rate,
        deliveries: deliveries / (published.took + late).as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / deliveries,
        p99_ms: crowd.take_latencies().quantile_ms(0.99),
    })
}
