//! HTTP: one file per resource, each with its `router()`; everything that all of them share is here.
//!
//! Every route but the page, its assets and the health checks takes a
//! [`Principal`](crate::access::principal::Principal) and checks a scope. Every error is a problem
//! document.

pub mod agents;
pub mod body;
pub mod control;
pub mod events;
pub mod health;
pub mod ingest;
pub mod page;
pub mod problem;
pub mod query;
pub mod runs;
pub mod session;
pub mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use axum::serve::ListenerExt as _;
use runcast_common::config::RedisUrl;
use runcast_common::connect::Redis;
use runcast_common::keys::Keys;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::{debug, warn};
use url::Url;

use crate::fanout::Hub;
use crate::history::History;
use crate::store::Store;
use problem::Problem;

/// Largest request body where no route says otherwise: a few names and labels.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long connections may take to finish after the streams were told to close.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// What all routes share. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Shared>);

/// What a gateway is made of.
#[derive(Debug)]
pub struct Parts {
    /// Postgres.
    pub store: Store,
    /// What is stored of runs, there and in the archive.
    pub history: History,
    /// Redis.
    pub redis: Redis,
    /// The keys there.
    pub keys: Keys,
    /// The watched runs.
    pub hub: Arc<Hub>,
    /// Redis as agents are told to reach it.
    pub publish_redis: RedisUrl,
    /// How browsers reach the gateway.
    pub public_url: Url,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    draining: AtomicBool,
}

impl Gateway {
    /// A gateway made of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            draining: AtomicBool::new(false),
        }))
    }

    /// Postgres.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.parts.store
    }

    fn history(&self) -> &History {
        &self.0.parts.history
    }

    fn redis(&self) -> &Redis {
        &self.0.parts.redis
    }

    fn keys(&self) -> &Keys {
        &self.0.parts.keys
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.0.parts.hub
    }

    fn publish_redis(&self) -> &RedisUrl {
        &self.0.parts.publish_redis
    }

    fn public_url(&self) -> &Url {
        &self.0.parts.public_url
    }

    /// True if browsers reach the gateway by https.
    fn is_secure(&self) -> bool {
        self.0.parts.public_url.scheme() == "https"
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    fn router(&self) -> Router {
        let header = |name: HeaderName, value: &'static str| {
            SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
        };
        Router::new()
            .merge(runs::router())
            .merge(events::router())
            .merge(ingest::router())
            .merge(control::router())
            .merge(agents::router())
            .merge(stream::router())
            .merge(session::router())
            .merge(health::router())
            .merge(page::router())
            .fallback(Problem::no_such_route)
            .method_not_allowed_fallback(Problem::wrong_method)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(header(header::REFERRER_POLICY, "same-origin"))
            .layer(header(header::X_FRAME_OPTIONS, "DENY"))
            .layer(header(header::CACHE_CONTROL, "no-store"))
            .layer(header(header::CONTENT_SECURITY_POLICY, page::POLICY))
            .with_state(self.clone())
    }

    /// Serves until `stop`: then readiness goes off, streams are told to close, and what is left gets
    /// [`DRAIN_DEADLINE`].
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let listener = listener.tap_io(|socket| {
            if let Err(error) = socket.set_nodelay(true) {
                debug!(%error, "a connection stays without TCP_NODELAY");
            }
        });
        let (gateway, router) = (self.clone(), self.router());
        let drained = CancellationToken::new();
        let draining = {
            let (stop, drained) = (stop.clone(), drained.clone());
            async move {
                stop.cancelled().await;
                gateway.0.draining.store(true, Ordering::Relaxed);
                drained.cancel();
            }
        };
        let serving = axum::serve(listener, router).with_graceful_shutdown(draining);
        let serving = std::pin::pin!(IntoFuture::into_future(serving));
        let deadline = async {
            drained.cancelled().await;
            tokio::time::sleep(DRAIN_DEADLINE).await;
        };
        tokio::select! {
            served = serving => served,
            () = deadline => {
                warn!("connections are still open after {DRAIN_DEADLINE:?}; they are cut");
                Ok(())
            }
        }
    }
}

/// Waits for a part of an answer, but not for ever.
async fn within<T>(deadline: Duration, what: impl Future<Output = T>) -> Option<T> {
    timeout(deadline, what).await.ok()
}
