//! Rate limits counted in Redis by one script, shared by all replicas.
//!
//! One call checks several limits of one subject, whose keys share a slot, and consumes from all of
//! them or from none. The time is that of Redis, so the clocks of replicas do not matter. The state
//! of a limit is one short string, which expires as soon as it means the same as no state.

use std::sync::LazyLock;
use std::time::Duration;

use redis::RedisError;
use redis::aio::ConnectionLike;

use crate::scripts::{call, unexpected_reply};

static RATE_LIMIT_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/rate_limit.lua")));

/// The algorithm of a limit: `search` uses a sliding window, all other limits use GCRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitAlgorithm {
    /// GCRA: the quota refills evenly. Smooth and exact.
    Gcra,
    /// Sliding window: at most `units` within any `period`, as closely as two counters can tell.
    SlidingWindow,
}

/// A quota per period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The algorithm.
    pub algorithm: LimitAlgorithm,
    /// Units that refill within the period; at least 1.
    pub units: u64,
    /// The period; at least 1 ms.
    pub period: Duration,
    /// Units that may be consumed at once; of a window, the same as `units`.
    pub burst: u64,
}

impl Quota {
    /// Microseconds until one unit refills.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "far below what a number of this kind holds exactly"
    )]
    pub fn micros_of_unit(&self) -> f64 {
        self.period.as_micros() as f64 / self.units as f64
    }

    /// Time until a whole burst refills.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "far below what a number of this kind holds exactly"
    )]
    pub fn full_after(&self) -> Duration {
        match self.algorithm {
            LimitAlgorithm::SlidingWindow => self.period,
            LimitAlgorithm::Gcra => self.period.mul_f64(self.burst as f64 / self.units as f64),
        }
    }
}

/// One limit to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCheck {
    /// The key of its state.
    pub key: String,
    /// The quota.
    pub quota: Quota,
    /// Units to consume.
    pub cost: u64,
}

/// The state of a limit after a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Whether the limit allows the cost.
    pub allowed: bool,
    /// Units left.
    pub remaining: u64,
    /// Time until the quota is full again, if nothing more is consumed.
    pub reset: Duration,
    /// Time until the same cost can be allowed.
    pub retry_after: Duration,
}

/// Checks limits whose keys share a slot. Each consumes its cost if all of them allow theirs.
pub async fn check<C: ConnectionLike>(
    checks: &[QuotaCheck],
    connection: &mut C,
) -> Result<Vec<QuotaStatus>, RedisError> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(RATE_LIMIT_SCRIPT.get_hash()).arg(checks.len());
    for check in checks {
        command.arg(&check.key);
    }
    for check in checks {
        let (kind, micros) = match check.quota.algorithm {
            LimitAlgorithm::Gcra => ("rate", check.quota.micros_of_unit().to_string()),
            LimitAlgorithm::SlidingWindow => ("window", check.quota.period.as_micros().to_string()),
        };
        command
            .arg(kind)
            .arg(check.cost)
            .arg(micros)
            .arg(check.quota.burst);
    }
    let reply = call(&RATE_LIMIT_SCRIPT, &command, connection).await?;
    let rows: Vec<(u8, u64, u64, u64)> = redis::from_redis_value(reply)?;
    if rows.len() != checks.len() {
        return Err(unexpected_reply("rate_limit"));
    }
    let status = |(allowed, remaining, reset, retry_after): (u8, u64, u64, u64)| QuotaStatus {
        allowed: allowed == 1,
        remaining,
        reset: Duration::from_micros(reset),
        retry_after: Duration::from_micros(retry_after),
    };
    Ok(rows.into_iter().map(status).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_gives_refill_times() {
        let quota = Quota {
            algorithm: LimitAlgorithm::Gcra,
            units: 100,
            period: Duration::from_secs(60),
            burst: 20,
        };
        assert!((quota.micros_of_unit() - 600_000.0).abs() < 1e-6);
        assert_eq!(quota.full_after(), Duration::from_secs(12));
    }
}
