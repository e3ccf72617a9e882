//! Who connects: how many connections there may be, and where each request came from.

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

/// Of the files that the process may have open, those that are kept for everything but clients: a tenth, but this many
/// at most.
const MOST_OTHER_FILES: u64 = 1024;

/// What is counted of connections.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    open: Gauge,
    refused: Counter,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("runcast_connections");
        let open = "Open connections of clients, with those of viewers";
        registry.register("open", open, self.open.clone());
        let refused = "Connections that were closed at once because there were too many";
        registry.register("refused", refused, self.refused.clone());
    }
}

/// The clients of a gateway.
#[derive(Debug)]
pub struct ConnectionLimiter {
    proxies: TrustedProxies,
    places: Arc<Semaphore>,
    meter: Metrics,
    is_full: AtomicBool,
    is_overlooked: AtomicBool,
}

/// An open connection; it counts until this is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    _place: OwnedSemaphorePermit,
    open: Gauge,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl ConnectionLimiter {
    /// At most so many connections; as many as the system allows if nothing is said.
    #[must_use]
    pub fn new(proxies: TrustedProxies, most: Option<u32>, meter: Metrics) -> Self {
        let most = most.map_or_else(most_files, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        Self {
            proxies,
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            meter,
            is_full: AtomicBool::new(false),
            is_overlooked: AtomicBool::new(false),
        }
    }

    /// Lets a client in, unless there are too many.
    #[must_use]
    pub fn admit(&self) -> Option<ConnectionPermit> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.meter.refused.inc();
            // Once for each time that all places are taken.
            if !self.is_full.swap(true, Ordering::Relaxed) {
                warn!("as many connections as may be are open: others are closed at once");
            }
            return None;
        };
        self.is_full.store(false, Ordering::Relaxed);
        self.meter.open.inc();
        Some(ConnectionPermit {
            _place: place,
            open: self.meter.open.clone(),
        })
    }

    /// Where a request came from, over a connection from `peer`.
    #[must_use]
    pub fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
        if self.proxies.is_overlooked(peer.ip(), headers)
            && !self.is_overlooked.swap(true, Ordering::Relaxed)
        {
            warn!(
                peer = %peer.ip(),
                "a request says by X-Forwarded-For whom it is for; if that is a proxy of yours, list it in RUNCAST_TRUSTED_PROXIES, \
                 or all behind it count as one client"
            );
        }
        self.proxies.client(peer.ip(), headers)
    }
}

/// As many as the process may have files open, but for some of them.
fn most_files() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let others = (files / 10).min(MOST_OTHER_FILES);
    usize::try_from(files - others).unwrap_or(usize::MAX)
}
