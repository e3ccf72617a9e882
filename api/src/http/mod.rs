//! HTTP: one file per resource, each with its `router()`; everything that all of them share is here.
//!
//! Every route but the page, its assets and the health checks takes a
//! [`Principal`](crate::access::principal::Principal) and checks a scope. Every error is a problem
//! document.

pub mod agents;
pub mod audit;
pub mod body;
mod compress;
pub mod connection;
pub mod control;
pub mod cors;
pub mod events;
pub mod feed;
pub mod health;
pub mod ingest;
pub mod jobs;
pub mod page;
pub mod problem;
pub mod query;
pub mod roles;
pub mod runs;
pub mod search;
pub mod session;
pub mod sessions;
pub mod stream;
pub mod text;
pub mod tls;
pub mod tokens;
pub mod users;
pub mod watch;
pub mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use runcast_common::config::RedisUrl;
use runcast_common::connect::Redis;
use runcast_common::keys::Keys;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_http::set_header::SetResponseHeaderLayer;
use url::Url;

use crate::access::principal::Principal;
use crate::access::{Access, Scope};
use crate::fanout::Hub;
use crate::fanout::delivery::Delivery;
use crate::health::Health;
use crate::run_labels::{RunLabels, Sight};
use crate::store::Store;
use crate::tasks::webhooks::guard::Allowed;
use connection::Server;
use cors::Origins;
use problem::Problem;

/// Largest request body where no route says otherwise: a few names and labels.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What all routes share. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Shared>);

/// What a gateway is made of.
#[derive(Debug)]
pub struct Parts {
    /// Postgres.
    pub store: Store,
    /// Redis.
    pub redis: Redis,
    /// The keys there.
    pub keys: Keys,
    /// The watched runs.
    pub hub: Arc<Hub>,
    /// What writes to viewers.
    pub delivery: Arc<Delivery>,
    /// Who may do what.
    pub access: Access,
    /// Redis as agents are told to reach it.
    pub publish_redis: RedisUrl,
    /// How browsers reach the gateway.
    pub public_url: Url,
    /// Whose pages may ask besides its own.
    pub cors: Origins,
    /// Where webhooks may lead.
    pub webhooks_allowed: Allowed,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    health: Health,
    labels: RunLabels,
    draining: AtomicBool,
}

impl Gateway {
    /// A gateway made of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (redis, store) = (parts.redis.clone(), parts.store.clone());
        Self(Arc::new(Shared {
            labels: RunLabels::new(store.clone()),
            health: Health::new(redis, store, parts.keys.clone()),
            parts,
            draining: AtomicBool::new(false),
        }))
    }

    /// Postgres.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.parts.store
    }

    /// Who may do what.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.0.parts.access
    }

    fn labels(&self) -> &RunLabels {
        &self.0.labels
    }

    /// Which runs somebody may see.
    fn sight(&self, principal: &Principal) -> Result<Sight, Problem> {
        Ok(Sight {
            visible: principal.visible(Scope::Read)?,
            labels: self.0.labels.clone(),
        })
    }

    fn redis(&self) -> &Redis {
        &self.0.parts.redis
    }

    fn keys(&self) -> &Keys {
        &self.0.parts.keys
    }

    fn health(&self) -> &Health {
        &self.0.health
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.0.parts.hub
    }

    fn publish_redis(&self) -> &RedisUrl {
        &self.0.parts.publish_redis
    }

    fn webhooks_allowed(&self) -> &Allowed {
        &self.0.parts.webhooks_allowed
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
            .merge(text::router())
            .merge(search::router())
            .merge(ingest::router())
            .merge(control::router())
            .merge(agents::router())
            .merge(jobs::router())
            .merge(webhooks::router())
            .merge(stream::router())
            .merge(watch::router())
            .merge(feed::router())
            .merge(session::router())
            .merge(sessions::router())
            .merge(tokens::router())
            .merge(users::router())
            .merge(roles::router())
            .merge(audit::router())
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
            .layer(self.0.parts.cors.layer())
            .with_state(self.clone())
    }

    /// Serves until the gateway stops; see [`connection`].
    pub async fn serve(self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let parts = &self.0.parts;
        let delivery = Arc::clone(&parts.delivery);
        let stop = parts.hub.stop().clone();
        let server = Server::new(self.router(), delivery, tls, stop);
        server.run(listener).await;
    }

    /// Readiness goes off: nobody shall be sent here any more.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }
}
