//! What an operator may set about webhooks: where they may lead, how long a receiver may take, and
//! how long deliveries are tried and kept.

use std::time::Duration;

use crate::egress::EgressPolicy;

/// What an operator may set about webhooks.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// `RUNCAST_WEBHOOK_ALLOW`: where webhooks may lead beside public addresses.
    pub allowed: EgressPolicy,
    /// `RUNCAST_WEBHOOK_TIMEOUT`: how long a receiver may take to answer.
    pub timeout: Duration,
    /// `RUNCAST_WEBHOOK_FIRST_RETRY`: the wait after the first failure.
    pub first_retry: Duration,
    /// `RUNCAST_WEBHOOK_GIVE_UP`: how long a delivery is tried.
    pub give_up: Duration,
    /// `RUNCAST_WEBHOOK_LOG`: how long finished deliveries are kept.
    pub keep: Duration,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            allowed: EgressPolicy::default(),
            timeout: Duration::from_secs(10),
            first_retry: Duration::from_secs(10),
            give_up: Duration::from_secs(24 * 3600),
            keep: Duration::from_secs(14 * 24 * 3600),
        }
    }
}
