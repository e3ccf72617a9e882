//! How much memory Redis may use, and which runs the append script answers `full` when Redis uses
//! more: the biggest first.
//!
//! Small runs lose nothing for the sake of big ones. There is one cap above which no run may grow:
//! the highest one with which all runs together fit. Meanwhile less of what is stored stays in
//! Redis for viewers, since Postgres has it too.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use runcast_common::config::byte_size::ByteSize;
use runcast_common::scripts::LiveWindow;

/// Share of `maxmemory` that is the budget if none is set. The rest is for what the server needs
/// beside its data: buffers of connections, and a copy while it persists.
const DEFAULT_BUDGET_PERCENT: u64 = 75;

/// Share of the budget from which on an operator is warned.
const WARN_PERCENT: u64 = 80;

/// No run is capped below this: it would gain little and stop a run that has just begun.
pub(crate) const MIN_CAP_BYTES: u64 = 1024 * 1024;

/// While Redis is over its budget, the live window is divided by this.
const WINDOW_DIVISOR: u64 = 16;

/// Whether Redis is over its budget: the memory monitor sets it, cycles obey it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryPressure(Arc<AtomicBool>);

impl MemoryPressure {
    pub(crate) fn set(&self, is_over_budget: bool) {
        self.0.store(is_over_budget, Ordering::Relaxed);
    }

    /// How much of a live window may stay in Redis at the moment.
    pub(crate) fn limit(&self, window: LiveWindow) -> LiveWindow {
        if !self.0.load(Ordering::Relaxed) {
            return window;
        }
        LiveWindow {
            events: window.events / WINDOW_DIVISOR,
            bytes: window.bytes / WINDOW_DIVISOR,
            seconds: window.seconds / WINDOW_DIVISOR,
        }
    }
}

/// `RUNCAST_REDIS_BUDGET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryBudget {
    /// 75 % of Redis' `maxmemory` if that is set, else none.
    #[default]
    OfMaxmemory,
    /// A fixed number of bytes.
    Bytes(u64),
    /// No limit.
    Off,
}

/// The value of `RUNCAST_REDIS_BUDGET` is not a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `off` or an amount of memory, such as 512MiB, 4GiB or a number of bytes")]
pub struct InvalidMemoryBudget;

impl FromStr for MemoryBudget {
    type Err = InvalidMemoryBudget;

    fn from_str(text: &str) -> Result<Self, InvalidMemoryBudget> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let size: ByteSize = text.parse().map_err(|_not_a_size| InvalidMemoryBudget)?;
        Ok(Self::Bytes(size.0))
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfMaxmemory => write!(f, "{DEFAULT_BUDGET_PERCENT} % of maxmemory"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Off => f.write_str("off"),
        }
    }
}

impl MemoryBudget {
    /// The budget in bytes, for a server with this `maxmemory` (0: not limited).
    pub(crate) const fn bytes(self, maxmemory: u64) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::OfMaxmemory if maxmemory > 0 => Some(maxmemory / 100 * DEFAULT_BUDGET_PERCENT),
            Self::OfMaxmemory | Self::Off => None,
        }
    }
}

/// Whether so much of the budget is used that an operator should know.
pub(crate) const fn is_tight(used: u64, budget: u64) -> bool {
    used >= budget / 100 * WARN_PERCENT
}

/// The cap in bytes that makes runs of these sizes lose `excess` bytes together, or as much of that
/// as [`MIN_CAP_BYTES`] allows; none if there is no excess.
pub(crate) fn cap_bytes(sizes: &[u64], excess: u64) -> Option<u64> {
    if excess == 0 {
        return None;
    }
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable_by(|one, other| other.cmp(one));
    let total: u64 = sorted.iter().sum();
    let fits = total.saturating_sub(excess);
    // Lower the cap past one run after the other, until what stays under it fits.
    let mut below = total;
    for (above, size) in (0u64..).zip(&sorted) {
        // `above` runs are capped at this size; `below` is what the others hold.
        if below + above * size <= fits {
            return Some((fits - below).checked_div(above)?.max(MIN_CAP_BYTES));
        }
        below -= size;
    }
    let runs = sorted.len() as u64;
    Some(fits.checked_div(runs)?.max(MIN_CAP_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn budgets_are_parsed() {
        assert_eq!("off".parse(), Ok(MemoryBudget::Off));
        assert_eq!("4GiB".parse(), Ok(MemoryBudget::Bytes(4 << 30)));
        assert_eq!("512 MiB".parse(), Ok(MemoryBudget::Bytes(512 << 20)));
        assert_eq!("1000".parse(), Ok(MemoryBudget::Bytes(1000)));
        for text in [
            "",
            "0",
            "-1",
            "4GB",
            "x",
            "99999999999999999999",
            "20000000000GiB",
        ] {
            assert_eq!(
                text.parse::<MemoryBudget>(),
                Err(InvalidMemoryBudget),
                "{text}"
            );
        }
        assert_eq!(MemoryBudget::OfMaxmemory.bytes(0), None);
        assert_eq!(MemoryBudget::OfMaxmemory.bytes(1000), Some(750));
    }

    #[test]
    fn the_biggest_runs_are_capped_first() {
        let sizes = [100 * MIB, 3 * MIB, 60 * MIB];
        assert_eq!(cap_bytes(&sizes, 0), None);
        assert_eq!(
            cap_bytes(&sizes, 10 * MIB),
            Some(90 * MIB),
            "only the biggest"
        );
        assert_eq!(
            cap_bytes(&sizes, 60 * MIB),
            Some(50 * MIB),
            "both big ones alike"
        );
        assert_eq!(cap_bytes(&sizes, 157 * MIB), Some(2 * MIB), "all alike");
        assert_eq!(cap_bytes(&sizes, 1000 * MIB), Some(MIN_CAP_BYTES));
        assert_eq!(cap_bytes(&[], MIB), None);
    }
}
