//! The rate limit script, compared with the cheapest call to Redis.

use std::time::Duration;

use runcast_common::rate_limit::{self, LimitAlgorithm, Quota, QuotaCheck};
use runcast_tests::stack::Stack;
use uuid::Uuid;

use crate::measure::say;
use crate::{Scale, columns, timed};

fn quota(algorithm: LimitAlgorithm, units: u64) -> Quota {
    Quota {
        algorithm,
        units,
        period: Duration::from_secs(60),
        burst: units,
    }
}

pub(crate) async fn limits(scale: Scale) {
    let stack = Stack::without_services().await;
    let mut connection = stack.redis.connection().await;
    let subject = format!("principal/{}", Uuid::new_v4());
    let ask = |policy: &str, quota| QuotaCheck {
        key: stack.keys().rate(&subject, policy),
        quota,
        cost: 1,
    };
    let allows = vec![ask("read", quota(LimitAlgorithm::Gcra, 1_000_000))];
    let refuses = vec![ask("write", quota(LimitAlgorithm::Gcra, 1))];
    let both = vec![
        ask("read", quota(LimitAlgorithm::Gcra, 1_000_000)),
        ask("search", quota(LimitAlgorithm::SlidingWindow, 1_000_000)),
    ];
    let sides = [
        ("one policy, allowed", allows),
        ("one policy, refused", refuses),
        ("two policies", both),
    ];
    let mut pings = Vec::new();
    let mut requested = vec![Vec::new(); sides.len()];
    for _ in 0..scale.rounds {
        let ping = timed(scale.calls, async || {
            let answer: String = redis::cmd("PING")
                .query_async(&mut connection)
                .await
                .expect("a response");
            assert_eq!(answer, "PONG");
        });
        pings.extend(ping.await);
        for ((_, asks), times) in sides.iter().zip(&mut requested) {
            let call = timed(scale.calls, async || {
                let standings = rate_limit::check(asks, &mut connection)
                    .await
                    .expect("a response");
                assert_eq!(standings.len(), asks.len());
            });
            times.extend(call.await);
        }
    }
    say(format_args!(
        "\nCounting a request, one at a time, {} calls of each in {} turns, us\n\n\
         | | p50 | p99 | beside PING |\n|---|---|---|---|\n| PING | {} |",
        scale.calls * scale.rounds,
        scale.rounds,
        columns(&pings, &pings),
    ));
    for ((name, _), times) in sides.iter().zip(&requested) {
        say(format_args!("| {name} | {} |", columns(times, &pings)));
    }
}
