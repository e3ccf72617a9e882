//! How much somebody has asked for, counted in Redis by one script for all replicas.
//!
//! A call asks several limits of one subject at once, whose keys share a slot, and takes of all or of none. Time is
//! Redis' own, so the clocks of replicas do not matter. What is kept of a limit is one short string that expires when
//! it says no more than nothing would.

use std::sync::LazyLock;
use std::time::Duration;

use redis::RedisError;
use redis::aio::ConnectionLike;

use crate::scripts::{call, unexpected};

static RATE: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/rate_limit.lua")));

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// What was taken comes back evenly (GCRA): smooth, and exact.
    Rate,
    /// At most so much within any stretch of the period, as closely as two counters tell.
    Window,
}

/// So much within a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How it counts.
    pub measure: Measure,
    /// Units that come back within the period; at least 1.
    pub units: u64,
    /// In which they come back; at least a millisecond.
    pub period: Duration,
    /// Units that may be taken at once; of a window, as many as its units.
    pub burst: u64,
}

impl Quota {
    /// In how long one unit comes back, in microseconds.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "far below what a number of this kind holds exactly"
    )]
    pub fn micros_of_unit(&self) -> f64 {
        self.period.as_micros() as f64 / self.units as f64
    }

    /// In how long a whole burst comes back.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "far below what a number of this kind holds exactly"
    )]
    pub fn full_after(&self) -> Duration {
        match self.measure {
            Measure::Window => self.period,
            Measure::Rate => self.period.mul_f64(self.burst as f64 / self.units as f64),
        }
    }
}

/// One limit that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCheck {
    /// Where its state is.
    pub key: String,
    /// What it allows.
    pub quota: Quota,
    /// What is to be taken.
    pub cost: u64,
}

/// What a limit answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Whether it allows it.
    pub allowed: bool,
    /// What is left.
    pub remaining: u64,
    /// When everything is there again, if nothing more is taken.
    pub reset: Duration,
    /// For how long it is no use to ask again.
    pub retry_after: Duration,
}

/// Asks limits whose keys share a slot; each takes its cost if all allow it.
///
/// # Errors
/// The connection's own, or a reply of another shape.
pub async fn ask<C: ConnectionLike>(
    asks: &[QuotaCheck],
    connection: &mut C,
) -> Result<Vec<QuotaStatus>, RedisError> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(RATE.get_hash()).arg(asks.len());
    for ask in asks {
        command.arg(&ask.key);
    }
    for ask in asks {
        let (kind, unit) = match ask.quota.measure {
            Measure::Rate => ("rate", ask.quota.micros_of_unit().to_string()),
            Measure::Window => ("window", ask.quota.period.as_micros().to_string()),
        };
        command
            .arg(kind)
            .arg(ask.cost)
            .arg(unit)
            .arg(ask.quota.burst);
    }
    let reply = call(&RATE, &command, connection).await?;
    let rows: Vec<(u8, u64, u64, u64)> = redis::from_redis_value(reply)?;
    if rows.len() != asks.len() {
        return Err(unexpected("rate"));
    }
    let standing = |(allowed, remaining, reset, retry_after): (u8, u64, u64, u64)| QuotaStatus {
        allowed: allowed == 1,
        remaining,
        reset: Duration::from_micros(reset),
        retry_after: Duration::from_micros(retry_after),
    };
    Ok(rows.into_iter().map(standing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_tells_how_long_things_take() {
        let quota = Quota {
            measure: Measure::Rate,
            units: 100,
            period: Duration::from_secs(60),
            burst: 20,
        };
        assert!((quota.micros_of_unit() - 600_000.0).abs() < 1e-6);
        assert_eq!(quota.full_after(), Duration::from_secs(12));
    }
}
