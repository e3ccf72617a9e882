//! Durations as an operator writes them: `500ms`, `10s`, `15m`, `24h`, `14d`.
//!
//! Not `humantime`: it prints 90 days as `2months 29days 2h 52m 48s` and accepts far more than the
//! one notation that help texts and errors show (`1y`, `M` for months, sums of several units).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Units and their milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// The longest duration that a setting may need: a century.
const MAX_DURATION_MS: u64 = 36_500 * 86_400_000;

/// A duration of 1 ms to 100 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// The text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as 500ms, 10s, 15m, 24h or 14d")]
pub struct InvalidDuration;

impl FromStr for HumanDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let known = DURATION_UNITS.iter().find(|(name, _)| *name == unit);
        let (_, factor) = known.ok_or(InvalidDuration)?;
        let number: u64 = number.parse().map_err(|_no_number| InvalidDuration)?;
        match number.checked_mul(*factor) {
            Some(ms @ 1..=MAX_DURATION_MS) => Ok(Self(Duration::from_millis(ms))),
            _ => Err(InvalidDuration),
        }
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let whole = DURATION_UNITS
            .iter()
            .find(|(_, factor)| ms.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", ms / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_a_whole_number_with_a_unit() {
        for text in ["500ms", "10s", "15m", "24h", "36500d"] {
            let duration: HumanDuration = text.parse().expect(text);
            let again: HumanDuration = duration.to_string().parse().expect("its own output");
            assert_eq!(duration, again, "{text}");
        }
        for (text, printed) in [("90s", "90s"), ("120s", "2m")] {
            let duration: HumanDuration = text.parse().expect(text);
            assert_eq!(duration.to_string(), printed);
        }
        for text in ["", "0s", "10", "s", "-1s", "1.5h", "10 s", "36501d", "1w"] {
            assert_eq!(
                text.parse::<HumanDuration>(),
                Err(InvalidDuration),
                "{text}"
            );
        }
    }
}
