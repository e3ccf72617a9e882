//! Limits the number of connections, and finds the address that a request came from.
//!
//! A connection over the limit is closed at once. Data: one permit per open connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderMap;
use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use runcast_access::client_ip::{ClientAddress, TrustedProxies};

/// Of the open files that the process may have, a tenth is reserved for everything but clients, and
/// at most this many.
const MAX_RESERVED_FILES: u64 = 1024;

/// Metrics of connections.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    open: Gauge,
    refused: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("runcast_connections");
        let open = "Open connections of clients, with those of viewers";
        registry.register("open", open, self.open.clone());
        let refused = "Connections that were closed at once because there were too many";
        registry.register("refused", refused, self.refused.clone());
    }
}

/// The connections of a gateway.
#[derive(Debug)]
pub struct ConnectionLimiter {
    proxies: TrustedProxies,
    permits: Arc<Semaphore>,
    metrics: Metrics,
    /// The limit is reached, and the log says so.
    is_full: AtomicBool,
    /// The log has warned about a proxy that is not listed.
    has_warned_of_proxy: AtomicBool,
}

/// An open connection; it counts until this is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
    open: Gauge,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl ConnectionLimiter {
    /// At most `limit` connections; without one, as many as the open-files limit of the process
    /// allows.
    pub fn new(proxies: TrustedProxies, limit: Option<u32>, metrics: Metrics) -> Self {
        let limit = limit.map_or_else(max_client_files, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        Self {
            proxies,
            permits: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))),
            metrics,
            is_full: AtomicBool::new(false),
            has_warned_of_proxy: AtomicBool::new(false),
        }
    }

    /// A permit for a connection, unless there are too many.
    #[must_use]
    pub fn admit(&self) -> Option<ConnectionPermit> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.refused.inc();
            // Warn once each time that the limit is reached.
            if !self.is_full.swap(true, Ordering::Relaxed) {
                warn!("connection limit reached; closing new connections at once");
            }
            return None;
        };
        self.is_full.store(false, Ordering::Relaxed);
        self.metrics.open.inc();
        Some(ConnectionPermit {
            _permit: permit,
            open: self.metrics.open.clone(),
        })
    }

    /// The address that a request came from, over a connection from `peer`.
    pub fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
        if self.proxies.is_unlisted_proxy(peer.ip(), headers)
            && !self.has_warned_of_proxy.swap(true, Ordering::Relaxed)
        {
            warn!(
                peer = %peer.ip(),
                "a request has X-Forwarded-For, but its peer is no trusted proxy; if it is a proxy of yours, \
                 list it in RUNCAST_TRUSTED_PROXIES, or all clients behind it count as one"
            );
        }
        self.proxies.client(peer.ip(), headers)
    }
}

/// The open files that are left for clients.
fn max_client_files() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let reserved = (files / 10).min(MAX_RESERVED_FILES);
    usize::try_from(files - reserved).unwrap_or(usize::MAX)
}
