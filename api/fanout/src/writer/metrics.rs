//! What is counted of the viewers on writer threads, and why their connections close.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the viewers on writer threads.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) viewers: Gauge,
    pub(super) bytes: Counter,
    false_wakeups: Counter,
    closed: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("runcast_viewers");
        registry.register(
            "open",
            "Viewers on sockets of their own",
            self.viewers.clone(),
        );
        registry.register(
            "sent_bytes",
            "Bytes sent to viewers on sockets of their own",
            self.bytes.clone(),
        );
        registry.register(
            "false_wakeups",
            "Wake-ups that announced events which Redis does not hold",
            self.false_wakeups.clone(),
        );
        registry.register(
            "closed",
            "Viewers whose connection has closed, by reason: left, ended, drained, revoked (their \
             credential ended), stalled (took nothing for too long), memory (the process was over \
             its limit), failed",
            self.closed.clone(),
        );
    }

    /// The counter of viewers on other connections that were closed because the process was over
    /// its memory limit.
    pub fn shed(&self) -> Counter {
        self.closed
            .get_or_create(&[("reason", CloseReason::Memory.name())])
            .clone()
    }

    /// The counter of wake-ups that announced what Redis does not hold.
    pub fn false_wakeups(&self) -> Counter {
        self.false_wakeups.clone()
    }

    pub(super) fn count_closed(&self, reason: CloseReason) {
        self.viewers.dec();
        self.closed
            .get_or_create(&[("reason", reason.name())])
            .inc();
    }
}

/// Why a viewer's connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    Left,
    Ended,
    Drained,
    Revoked,
    Stalled,
    Memory,
    Failed,
}

impl CloseReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Ended => "ended",
            Self::Drained => "drained",
            Self::Revoked => "revoked",
            Self::Stalled => "stalled",
            Self::Memory => "memory",
            Self::Failed => "failed",
        }
    }
}
