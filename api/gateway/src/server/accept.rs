//! Accepts connections until the gateway stops, then waits for those that are open.
//!
//! Each connection is served by a task of its own ([`super::serve`]). Data: the tasks, as many as
//! there are connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::connections::ConnectionLimiter;
use runcast_fanout::memory::MemoryGuard;
use runcast_fanout::writer::WriterPool;

/// How long connections may take to finish after the streams were closed.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Pause after the kernel could not accept a connection, because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves connections.
pub struct Server {
    pub(super) router: TowerToHyperService<Router>,
    pub(super) writers: Arc<WriterPool>,
    pub(super) clients: ConnectionLimiter,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) stall_timeout: Duration,
    pub(super) memory: Arc<MemoryGuard>,
    pub(super) stop: CancellationToken,
}

impl Server {
    /// A server of these routes until `stop`. A client that reads nothing for `stall_timeout` is
    /// cut off, or sooner while `memory` is short.
    pub fn new(
        router: Router,
        writers: Arc<WriterPool>,
        clients: ConnectionLimiter,
        tls: Option<TlsAcceptor>,
        stall_timeout: Duration,
        memory: Arc<MemoryGuard>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            router: TowerToHyperService::new(router),
            writers,
            clients,
            tls,
            stall_timeout,
            memory,
            stop,
        })
    }

    /// Accepts connections until `stop`, then waits for open ones, at most [`DRAIN_DEADLINE`].
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let connections = TaskTracker::new();
        let stop = self.stop.clone();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((socket, peer)) => {
                    if let Some(permit) = self.clients.admit() {
                        connections.spawn(Arc::clone(&self).serve(socket, peer, permit));
                    }
                }
                Err(error) if is_of_client(&error) => {
                    debug!(%error, "a client closed its connection before it was accepted");
                }
                Err(error) => {
                    error!(%error, "cannot accept connections; retrying in {ACCEPT_PAUSE:?}");
                    stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                }
            }
        }
        drop(listener);
        connections.close();
        if timeout(DRAIN_DEADLINE, connections.wait()).await.is_err() {
            warn!("connections are still open after {DRAIN_DEADLINE:?}; cutting them");
        }
    }
}

/// Whether an error of `accept` concerns one connection only.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
