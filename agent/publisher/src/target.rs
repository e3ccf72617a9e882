//! [`Target`]: where a publisher publishes.

use runcast_common::config::RedisUrl;
use uuid::Uuid;

use crate::gateway_client::{GatewayClient, Session};
use crate::transport_choice::TransportChoice;

/// Where to publish: one variation of a run, and the ways to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The address of Redis, if agents may publish to it.
    pub redis: Option<RedisUrl>,
    /// The prefix of every Redis key; usually empty.
    pub prefix: String,
    /// The gateway, if there is one to publish through.
    pub gateway: Option<GatewayClient>,
    /// Which of the two ways are allowed.
    pub transport: TransportChoice,
    /// The run.
    pub run: Uuid,
    /// The variation of the run.
    pub variation: u16,
}

impl Target {
    /// One variation of a run in this Redis, without a gateway.
    #[must_use]
    pub fn in_redis(redis: RedisUrl, prefix: &str, run: Uuid, variation: u16) -> Self {
        Self {
            redis: Some(redis),
            prefix: prefix.to_owned(),
            gateway: None,
            transport: TransportChoice::Redis,
            run,
            variation,
        }
    }
}

impl Session {
    /// Where to publish one variation of the run.
    pub fn target(&self, variation: u16) -> Target {
        Target {
            redis: self.redis.clone(),
            prefix: self.prefix.clone(),
            gateway: Some(self.client.clone()),
            transport: self.transport,
            run: self.run,
            variation,
        }
    }
}
