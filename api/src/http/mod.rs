//! HTTP: one file per resource, each with its `router()`; everything that all of them share is here.
//!
//! Every route but the page, its assets and the health checks takes a
//! [`Principal`](crate::access::principal::Principal) and checks a scope. Every error is a problem
//! document.

pub mod agents;
pub mod body;
pub mod clients;
mod compress;
pub mod connection;
pub mod control;
pub mod cors;
pub mod events;
pub mod feed;
mod headers;
pub mod health;
pub(crate) mod holding;
mod idle;
pub mod ingest;
pub mod jobs;
pub mod page;
pub mod problem;
pub mod query;
pub mod request;
pub mod runs;
pub mod search;
pub mod session;
pub mod stream;
pub mod text;
pub mod tls;
pub mod watch;
pub mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use runcast_common::config::RedisUrl;
use runcast_common::connect::Redis;
use runcast_common::keys::Keys;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;

use crate::access::limit::{self, Limits};
use crate::fanout::Hub;
use crate::fanout::delivery::Delivery;
use crate::health::Health;
use crate::store::Store;
use crate::tasks::webhooks::guard::Allowed;
use clients::Clients;
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
    /// Redis as agents are told to reach it.
    pub publish_redis: RedisUrl,
    /// How browsers reach the gateway.
    pub public_url: Url,
    /// Whose pages may ask besides its own.
    pub cors: Origins,
    /// Where webhooks may lead.
    pub webhooks_allowed: Allowed,
    /// How much one may ask.
    pub limits: Arc<Limits>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    health: Health,
    draining: AtomicBool,
}

impl Gateway {
    /// A gateway made of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (redis, store) = (parts.redis.clone(), parts.store.clone());
        Self(Arc::new(Shared {
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

    fn redis(&self) -> &Redis {
        &self.0.parts.redis
    }

    fn keys(&self) -> &Keys {
        &self.0.parts.keys
    }

    /// How much one may ask.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.parts.limits
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
        let routes = Router::new()
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
            .merge(health::router())
            .merge(page::router())
            .fallback(Problem::no_such_route)
            .method_not_allowed_fallback(Problem::wrong_method)
            // From the inside out: who it is, is found out between the two layers of limits.
            .layer(from_fn_with_state(self.clone(), limit::layer::rates))
            .layer(from_fn_with_state(self.clone(), limit::layer::identify))
            .layer(from_fn_with_state(self.clone(), limit::layer::guesses))
            .layer(from_fn(request::bounded))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
        headers::secured(routes, self.is_secure())
            .layer(self.0.parts.cors.layer())
            .with_state(self.clone())
    }

    /// Serves until the gateway stops; see [`connection`].
    pub async fn serve(self, listener: TcpListener, tls: Option<TlsAcceptor>, clients: Clients) {
        let parts = &self.0.parts;
        let delivery = Arc::clone(&parts.delivery);
        let stop = parts.hub.stop().clone();
        let server = Server::new(self.router(), delivery, clients, tls, stop);
        server.run(listener).await;
    }

    /// Readiness goes off: nobody shall be sent here any more.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }
}
