//! Ages as an operator writes them: `90d`, `12h`, `30m`, `45s`.
//!
//! An age in days counts whole days, in UTC: everything of a day reaches it at the same moment, and
//! can be removed at once. The shorter units count exactly.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};

/// Longest age: a century.
const MAX_AGE_SECONDS: u64 = 36_500 * 86_400;

/// An age from a second to a century.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    seconds: u64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Days,
    Hours,
    Minutes,
    Seconds,
}

impl Unit {
    const fn seconds(self) -> u64 {
        match self {
            Self::Days => 86_400,
            Self::Hours => 3_600,
            Self::Minutes => 60,
            Self::Seconds => 1,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Days => 'd',
            Self::Hours => 'h',
            Self::Minutes => 'm',
            Self::Seconds => 's',
        }
    }
}

impl Age {
    /// An age of this number of days.
    pub const fn days(days: u32) -> Self {
        Self {
            seconds: days as u64 * Unit::Days.seconds(),
            unit: Unit::Days,
        }
    }

    /// The age as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// What happened before this moment has reached the age at `now`.
    pub fn horizon(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let age = TimeDelta::seconds(i64::try_from(self.seconds).unwrap_or(i64::MAX));
        let moment = now.checked_sub_signed(age).unwrap_or(DateTime::UNIX_EPOCH);
        match self.unit {
            Unit::Days => moment.with_time(NaiveTime::MIN).single().unwrap_or(moment),
            _ => moment,
        }
    }
}

impl FromStr for Age {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let units = [Unit::Days, Unit::Hours, Unit::Minutes, Unit::Seconds];
        let age = units.into_iter().find_map(|unit| {
            let digits = text.strip_suffix(unit.letter())?;
            let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let number: u64 = digits.parse().ok().filter(|_| is_plain)?;
            let seconds = number.checked_mul(unit.seconds())?;
            (1..=MAX_AGE_SECONDS)
                .contains(&seconds)
                .then_some(Self { seconds, unit })
        });
        age.ok_or("expected an age from 1s to 36500d, such as 90d, 12h, 30m or 45s")
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.seconds / self.unit.seconds(),
            self.unit.letter()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        for text in ["1d", "36500d", "1h", "90m", "1s", "876000h"] {
            assert_eq!(text.parse::<Age>().expect(text).to_string(), text);
        }
        for text in [
            "",
            "d",
            "0d",
            "90",
            "-1d",
            "+1d",
            "36501d",
            "90 d",
            "1d12h",
            "1w",
            "99999999999999999999d",
        ] {
            text.parse::<Age>().expect_err(text);
        }
        assert_eq!(
            "2h".parse::<Age>().expect("an age").duration(),
            Duration::from_secs(7200)
        );
    }

    #[test]
    fn ages_in_days_count_whole_days() {
        let now = "2026-11-21T16:30:05Z".parse().expect("a moment");
        let horizon = |text: &str| text.parse::<Age>().expect(text).horizon(now).to_rfc3339();
        assert_eq!(horizon("1d"), "2026-11-20T00:00:00+00:00");
        assert_eq!(horizon("24h"), "2026-11-20T16:30:05+00:00");
        assert_eq!(horizon("5s"), "2026-11-21T16:30:00+00:00");
    }
}
