//! What is limited, and how much of it one may have: `RUNCAST_LIMITS`.

use std::str::FromStr;
use std::time::Duration;

use runcast_common::config::HumanDuration;
use runcast_common::config::byte_size::ByteSize;
use runcast_common::protocol::limits::{MAX_ENTRY_BYTES, MAX_EVENT_BYTES};
use runcast_common::rate_limit::{Measure, Quota};

/// Of what there may be only so much within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Requests that change something, of one principal.
    Write,
    /// Requests that change nothing, of one principal; a stream is one.
    Read,
    /// Searches, of one principal.
    Search,
    /// Attempts to sign in, by address and by whom they name.
    SignIn,
    /// Requests that publish, of one principal.
    Ingest,
    /// Bytes published over HTTP, to one run.
    Publish,
    /// Credentials that were wrong, by address.
    Failed,
}

impl Policy {
    /// All policies.
    pub const ALL: [Self; 7] = [
        Self::Write,
        Self::Read,
        Self::Search,
        Self::SignIn,
        Self::Ingest,
        Self::Publish,
        Self::Failed,
    ];

    /// Its name in settings, headers, keys and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Search => "search",
            Self::SignIn => "sign-in",
            Self::Ingest => "ingest",
            Self::Publish => "publish",
            Self::Failed => "failed",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// How much of everything one may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitConfig {
    quotas: [Option<Quota>; Policy::ALL.len()],
    /// Streams that one principal may have open at this process.
    pub streams: Option<u32>,
    /// Streams that one address may have open at this process.
    pub streams_by_address: Option<u32>,
    /// Connections to this process; if nothing is said, as many as the system lets it have.
    pub connections: Option<u32>,
}

/// Least burst of published bytes: a batch must fit in.
const LEAST_PUBLISH_BURST: u64 = 2 * (MAX_ENTRY_BYTES + MAX_EVENT_BYTES) as u64;

const EXPECTED: &str = "expected off, or a list such as \
     write=100/min,read=600/min:50,search=30/min,sign-in=5/min,ingest=3000/min,publish=16MiB/s:64MiB,failed=30/min,\
     streams=256,streams-by-address=1024,connections=10000, where off is a value as well";

impl Default for LimitConfig {
    fn default() -> Self {
        let minute = |units| Quota {
            measure: Measure::Rate,
            units,
            period: Duration::from_secs(60),
            burst: units,
        };
        let mut quotas = [None; Policy::ALL.len()];
        for policy in Policy::ALL {
            quotas[policy.index()] = Some(match policy {
                Policy::Write => minute(100),
                Policy::Read => minute(600),
                Policy::Search => Quota {
                    measure: Measure::Window,
                    ..minute(30)
                },
                Policy::SignIn => minute(5),
                Policy::Ingest => minute(3000),
                Policy::Publish => Quota {
                    measure: Measure::Rate,
                    units: 16 << 20,
                    period: Duration::from_secs(1),
                    burst: 64 << 20,
                },
                Policy::Failed => minute(30),
            });
        }
        Self {
            quotas,
            streams: Some(256),
            streams_by_address: Some(1024),
            connections: None,
        }
    }
}

impl LimitConfig {
    /// What a policy allows, if it is on.
    #[must_use]
    pub const fn quota(&self, policy: Policy) -> Option<Quota> {
        self.quotas[policy.index()]
    }

    /// Nothing is limited, but the connections by the system.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            quotas: [None; Policy::ALL.len()],
            streams: None,
            streams_by_address: None,
            connections: None,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let count = || match value {
            "off" => Ok(None),
            _ => match value.parse() {
                Ok(count @ 1..) => Ok(Some(count)),
                _ => Err(format!("{name}: expected a number from 1, or off")),
            },
        };
        match name {
            "streams" => self.streams = count()?,
            "streams-by-address" => self.streams_by_address = count()?,
            "connections" => self.connections = count()?,
            _ => {
                let policy = Policy::ALL.into_iter().find(|one| one.name() == name);
                let policy =
                    policy.ok_or_else(|| format!("{name:?} is nothing to limit; {EXPECTED}"))?;
                self.quotas[policy.index()] = match value {
                    "off" => None,
                    _ => Some(quota(policy, value).map_err(|why| format!("{name}: {why}"))?),
                };
            }
        }
        Ok(())
    }
}

impl FromStr for LimitConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "off" {
            return Ok(Self::off());
        }
        let mut rules = Self::default();
        let mut seen = Vec::new();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (name, value) = one
                .split_once('=')
                .ok_or_else(|| format!("{one:?} says nothing; {EXPECTED}"))?;
            let (name, value) = (name.trim(), value.trim());
            if seen.contains(&name) {
                return Err(format!("{name} stands there twice"));
            }
            seen.push(name);
            rules.set(name, value)?;
        }
        Ok(rules)
    }
}

/// `UNITS/PERIOD` or `UNITS/PERIOD:BURST`.
fn quota(policy: Policy, text: &str) -> Result<Quota, String> {
    let (rate, burst) = match text.split_once(':') {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let (units, period) = rate
        .split_once('/')
        .ok_or("expected a number for each period, such as 100/min")?;
    let number = |text: &str| match policy {
        Policy::Publish => text
            .parse()
            .map(|ByteSize(bytes)| bytes)
            .map_err(|why| why.to_string()),
        _ => match text.parse() {
            Ok(number @ 1..) => Ok(number),
            _ => Err(format!("{text:?} is no number from 1")),
        },
    };
    let units = number(units)?;
    let period = match period {
        "s" => Duration::from_secs(1),
        "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(24 * 3600),
        other => {
            let span = other.parse().map(|HumanDuration(span)| span);
            span.map_err(|_no_span| format!("{other:?} is no period, such as s, min, h or 10s"))?
        }
    };
    let measure = match policy {
        Policy::Search => Measure::Window,
        _ => Measure::Rate,
    };
    let burst = match burst {
        None => units.max(if policy == Policy::Publish {
            LEAST_PUBLISH_BURST
        } else {
            1
        }),
        Some(_) if measure == Measure::Window => {
            return Err("is counted in a window, which has no burst".to_owned());
        }
        Some(burst) => number(burst)?,
    };
    if policy == Policy::Publish && burst < LEAST_PUBLISH_BURST {
        return Err(format!(
            "a burst of at least {LEAST_PUBLISH_BURST} bytes is needed"
        ));
    }
    // What one process counts by itself has 32 bits, and whole nanoseconds for each unit.
    if u32::try_from(burst).is_err() || u128::from(units) > period.as_nanos() {
        return Err("that is too much to be counted; off is a limit as well".to_owned());
    }
    Ok(Quota {
        measure,
        units,
        period,
        burst,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_stays_as_it_is() {
        let rules: LimitConfig = "write=10/s:50, search=off,streams=3,publish=1MiB/s"
            .parse()
            .expect("rules");
        let write = rules.quota(Policy::Write).expect("a quota");
        assert_eq!((write.units, write.burst), (10, 50));
        assert_eq!(write.period, Duration::from_secs(1));
        assert_eq!(rules.quota(Policy::Search), None);
        assert_eq!(
            rules.quota(Policy::Read),
            LimitConfig::default().quota(Policy::Read)
        );
        assert_eq!(
            (rules.streams, rules.streams_by_address),
            (Some(3), Some(1024))
        );
        let publish = rules.quota(Policy::Publish).expect("a quota");
        assert_eq!(
            (publish.units, publish.burst),
            (1 << 20, LEAST_PUBLISH_BURST)
        );
        assert_eq!("off".parse(), Ok(LimitConfig::off()));
        assert_eq!("".parse(), Ok(LimitConfig::default()));
    }

    #[test]
    fn nonsense_is_refused_with_what_would_make_sense() {
        for (text, word) in [
            ("100/min", "says nothing"),
            ("writes=100/min", "nothing to limit"),
            ("write=100", "100/min"),
            ("write=0/min", "number from 1"),
            ("write=-1/min", "number from 1"),
            ("write=100/year", "no period"),
            ("write=100/min:0", "number from 1"),
            ("write=1/min,write=2/min", "twice"),
            ("search=30/min:10", "no burst"),
            ("publish=1GB/s", "amount"),
            ("publish=1MiB/s:1KiB", "at least"),
            ("publish=1MiB/s:8GiB", "too much"),
            ("read=99999999999/s", "too much"),
            ("streams=none", "or off"),
            ("connections=0", "or off"),
        ] {
            let error = text.parse::<LimitConfig>().expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
