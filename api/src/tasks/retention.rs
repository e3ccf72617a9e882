//! How long runs are kept, and the job that removes older ones.

use std::fmt;
use std::str::FromStr;

use chrono::{Days, Utc};
use tracing::{info, warn};

use super::{TaskError, Worker};
use crate::store::retention::Removed;

/// How long runs are kept: a number of days after their creation, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention(Option<u32>);

impl Default for Retention {
    fn default() -> Self {
        Self(Some(90))
    }
}

/// Longest retention in days that is not for ever: a century.
const MOST_DAYS: u32 = 36_500;

impl FromStr for Retention {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
        match days {
            Some(days @ 1..=MOST_DAYS) => Ok(Self(Some(days))),
            _ => Err("expected 1d to 36500d, such as 90d, or forever"),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(days) => write!(f, "{days}d"),
            None => f.write_str("forever"),
        }
    }
}

/// Removes all days that are too old.
///
/// # Errors
/// [`TaskError`]; the days that were removed until then stay so.
pub(super) async fn remove_old(worker: &Worker) -> Result<(), TaskError> {
    let Some(days) = worker.retention.0 else {
        return Ok(());
    };
    let Some(horizon) = Utc::now().checked_sub_days(Days::new(u64::from(days))) else {
        return Ok(());
    };
    for due in worker.store.days_before(horizon).await? {
        match worker.store.remove_day(&due).await? {
            Removed::Runs(runs) => info!(day = %due.day, runs, "removed a day of runs"),
            Removed::Lives(run) => {
                warn!(day = %due.day, %run, "a day of runs is kept: one of them has a living agent");
                // Days that follow are not to go before it.
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_a_number_of_days_or_for_ever() {
        for text in ["1d", "90d", "36500d", "forever"] {
            let retention: Retention = text.parse().expect(text);
            assert_eq!(retention.to_string(), text);
        }
        assert_eq!(Retention::default().to_string(), "90d");
        for text in ["", "0d", "90", "d", "-1d", "36501d", "90 d"] {
            text.parse::<Retention>().expect_err(text);
        }
    }
}
