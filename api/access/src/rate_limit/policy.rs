//! [`Policy`] and [`LimitConfig`]: what is limited, and how far: `RUNCAST_LIMITS`.

use std::str::FromStr;
use std::time::Duration;

use runcast_common::config::HumanDuration;
use runcast_common::config::byte_size::ByteSize;
use runcast_common::protocol::limits::{MAX_ENTRY_BYTES, MAX_EVENT_BYTES};
use runcast_common::rate_limit::{LimitAlgorithm, Quota};

/// What is limited within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Requests of one principal that change something.
    Write,
    /// Requests of one principal that only read; a stream counts once.
    Read,
    /// Searches of one principal.
    Search,
    /// Attempts to sign in, by address and by the name they give.
    SignIn,
    /// Requests of one principal that publish.
    Ingest,
    /// Bytes published over HTTP, to one run.
    Publish,
    /// Failed authentications, by address.
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

/// How far each policy and each number is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitConfig {
    quotas: [Option<Quota>; Policy::ALL.len()],
    /// Streams that one principal may have open in this process.
    pub streams: Option<u32>,
    /// Streams that one address may have open in this process.
    pub streams_by_address: Option<u32>,
    /// Connections to this process; if not set, as many as the system allows.
    pub connections: Option<u32>,
}

/// Smallest burst of published bytes: a batch must fit in.
const MIN_PUBLISH_BURST_BYTES: u64 = 2 * (MAX_ENTRY_BYTES + MAX_EVENT_BYTES) as u64;

const EXPECTED_FORMAT: &str = "expected off, or a list such as \
     write=100/min,read=600/min:50,search=30/min,sign-in=5/min,ingest=3000/min,\
     publish=16MiB/s:64MiB,failed=30/min,streams=256,streams-by-address=1024,connections=10000, \
     where each value may be off";

impl Default for LimitConfig {
    fn default() -> Self {
        let minute = |units| Quota {
            algorithm: LimitAlgorithm::Gcra,
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
                    algorithm: LimitAlgorithm::SlidingWindow,
                    ..minute(30)
                },
                Policy::SignIn => minute(5),
                Policy::Ingest => minute(3000),
                Policy::Publish => Quota {
                    algorithm: LimitAlgorithm::Gcra,
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
    /// The quota of a policy; none if it is off.
    pub const fn quota(&self, policy: Policy) -> Option<Quota> {
        self.quotas[policy.index()]
    }

    /// No limits, except that the system limits connections.
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
                    policy.ok_or_else(|| format!("{name:?} is not a limit; {EXPECTED_FORMAT}"))?;
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
        let mut config = Self::default();
        let mut seen = Vec::new();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (name, value) = one
                .split_once('=')
                .ok_or_else(|| format!("{one:?} has no value; {EXPECTED_FORMAT}"))?;
            let (name, value) = (name.trim(), value.trim());
            if seen.contains(&name) {
                return Err(format!("{name} is set twice"));
            }
            seen.push(name);
            config.set(name, value)?;
        }
        Ok(config)
    }
}

/// Parses `UNITS/PERIOD` or `UNITS/PERIOD:BURST`.
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
            _ => Err(format!("{text:?} is not a number from 1")),
        },
    };
    let units = number(units)?;
    let period = match period {
        "s" => Duration::from_secs(1),
        "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(24 * 3600),
        other => {
            let duration = other.parse().map(|HumanDuration(duration)| duration);
            duration.map_err(|_invalid| {
                format!("{other:?} is not a period, such as s, min, h or 10s")
            })?
        }
    };
    let algorithm = match policy {
        Policy::Search => LimitAlgorithm::SlidingWindow,
        _ => LimitAlgorithm::Gcra,
    };
    let burst = match burst {
        None => units.max(if policy == Policy::Publish {
            MIN_PUBLISH_BURST_BYTES
        } else {
            1
        }),
        Some(_) if algorithm == LimitAlgorithm::SlidingWindow => {
            return Err("it is counted in a sliding window, which has no burst".to_owned());
        }
        Some(burst) => number(burst)?,
    };
    if policy == Policy::Publish && burst < MIN_PUBLISH_BURST_BYTES {
        return Err(format!(
            "a burst of at least {MIN_PUBLISH_BURST_BYTES} bytes is needed"
        ));
    }
    // The local limiter counts in 32 bits, with whole nanoseconds for each unit.
    if u32::try_from(burst).is_err() || u128::from(units) > period.as_nanos() {
        return Err("that is too much to be counted; use off for no limit".to_owned());
    }
    Ok(Quota {
        algorithm,
        units,
        period,
        burst,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_not_set_keep_their_defaults() {
        let config: LimitConfig = "write=10/s:50, search=off,streams=3,publish=1MiB/s"
            .parse()
            .expect("a config");
        let write = config.quota(Policy::Write).expect("a quota");
        assert_eq!((write.units, write.burst), (10, 50));
        assert_eq!(write.period, Duration::from_secs(1));
        assert_eq!(config.quota(Policy::Search), None);
        assert_eq!(
            config.quota(Policy::Read),
            LimitConfig::default().quota(Policy::Read)
        );
        assert_eq!(
            (config.streams, config.streams_by_address),
            (Some(3), Some(1024))
        );
        let publish = config.quota(Policy::Publish).expect("a quota");
        assert_eq!(
            (publish.units, publish.burst),
            (1 << 20, MIN_PUBLISH_BURST_BYTES)
        );
        assert_eq!("off".parse(), Ok(LimitConfig::off()));
        assert_eq!("".parse(), Ok(LimitConfig::default()));
    }

    #[test]
    fn invalid_limits_are_rejected_with_the_expected_format() {
        for (text, word) in [
            ("100/min", "has no value"),
            ("writes=100/min", "not a limit"),
            ("write=100", "100/min"),
            ("write=0/min", "number from 1"),
            ("write=-1/min", "number from 1"),
            ("write=100/year", "not a period"),
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
