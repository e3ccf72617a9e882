//! The metrics of rate limits.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::concurrency::LimitReached;
use super::limiter::Source;
use super::policy::Policy;

/// The metrics of rate limits. Cloning is cheap; clones count together.
#[derive(Debug, Clone, Default)]
pub struct RateLimitMetrics {
    limited: Family<[(&'static str, &'static str); 2], Counter>,
    decided: Family<[(&'static str, &'static str); 1], Counter>,
    pub(super) streams: Gauge,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
}

impl RateLimitMetrics {
    /// Registers all metrics.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("runcast_limits");
        registry.register(
            "limited",
            "Requests that were refused or had to wait, by policy and by where they were counted: \
             redis (for all gateways), process (this one only, while Redis does not answer)",
            self.limited.clone(),
        );
        registry.register(
            "decided",
            "Requests that were counted, by where they were counted",
            self.decided.clone(),
        );
        registry.register(
            "streams",
            "Open streams of server-sent events",
            self.streams.clone(),
        );
        registry.register(
            "streams_refused",
            "Streams that were refused, by what had too many of them open: principal, address",
            self.refused.clone(),
        );
    }

    pub(super) fn decided(&self, source: Source) {
        self.decided
            .get_or_create(&[("source", source.name())])
            .inc();
    }

    pub(super) fn limited(&self, policy: Policy, source: Source) {
        let labels = [("policy", policy.name()), ("source", source.name())];
        self.limited.get_or_create(&labels).inc();
    }

    pub(super) fn refused(&self, reached: LimitReached) {
        self.refused
            .get_or_create(&[("reason", reached.name())])
            .inc();
    }
}
