//! [`TransportChoice`]: `RUNCAST_TRANSPORT`.

use std::str::FromStr;

/// Which ways of publishing are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportChoice {
    /// Redis where the gateway hands out its address and it answers within two seconds, else the
    /// gateway. Changes over whenever that changes.
    #[default]
    Auto,
    /// Only the gateway.
    Gateway,
    /// Only Redis.
    Redis,
}

/// The text names no transport.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no transport: give auto, gateway or redis")]
pub struct UnknownTransport(String);

impl FromStr for TransportChoice {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, UnknownTransport> {
        match text {
            "auto" => Ok(Self::Auto),
            "gateway" => Ok(Self::Gateway),
            "redis" => Ok(Self::Redis),
            other => Err(UnknownTransport(other.chars().take(64).collect())),
        }
    }
}
