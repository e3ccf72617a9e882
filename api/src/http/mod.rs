//! HTTP: one file per resource, each with its `router()`; everything that all of them share is here.
//!
//! Each handler documents who may call it; [the guard](crate::access::guard) lets nobody else through. A handler that asks
//! for the [`Principal`] is given whom it let through. Every error is a problem
//! document.

pub mod agents;
pub mod audit;
pub mod body;
pub mod clients;
mod compress;
pub mod connection;
pub mod control;
pub mod cors;
mod etag;
pub mod events;
pub mod feed;
mod headers;
pub mod health;
pub(crate) mod holding;
pub mod identities;
mod idle;
pub mod ingest;
pub mod jobs;
pub mod oidc;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod query;
pub mod request;
pub mod roles;
pub mod runs;
pub mod search;
pub mod session;
pub mod sessions;
mod socket;
pub mod stream;
pub mod stream_tickets;
pub mod text;
pub mod tls;
pub mod tokens;
pub mod users;
pub mod watch;
pub mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use runcast_common::config::RedisUrl;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;
use utoipa_axum::router::OpenApiRouter;

use crate::access::guard::{Guard, guard};
use crate::access::limit::{self, Limits};
use crate::access::oidc::Oidc;
use crate::access::principal::Principal;
use crate::access::rules::Rules;
use crate::access::{Access, Scope};
use crate::fanout::Hub;
use crate::fanout::delivery::Delivery;
use crate::health::Health;
use crate::run_labels::{RunLabels, Sight};
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
    /// How long a client may take nothing of what is sent.
    pub patience: Duration,
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
    /// How much one may ask.
    pub limits: Arc<Limits>,
    /// An issuer that says who signs in.
    pub oidc: Option<Oidc>,
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

    /// How much one may ask.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.parts.limits
    }

    fn oidc(&self) -> Option<&Oidc> {
        self.0.parts.oidc.as_ref()
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
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.parts.public_url.scheme() == "https"
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// All routes, behind [the guard](crate::access::guard), and within [limits](limit::layer).
    ///
    /// # Errors
    /// If their document cannot be written, which its tests rule out.
    fn router(&self) -> serde_json::Result<Router> {
        let (routes, document) = routes().split_for_parts();
        let mut document = serde_json::to_value(document)?;
        openapi::complete(&mut document);
        let rules = Rules::of(&document);
        let routes = routes
            .layer(Extension(openapi::Document::new(&document)))
            // From the inside out: the guard stands between the two layers of limits, and what knows who asks within it.
            .route_layer(from_fn_with_state(self.clone(), limit::layer::rates))
            .route_layer(from_fn_with_state(Guard::new(self.clone(), rules), guard))
            .route_layer(from_fn_with_state(self.clone(), limit::layer::guesses))
            .fallback(Problem::no_such_route)
            .layer(from_fn(request::bounded))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
        let router = headers::secured(routes, self.is_secure())
            .layer(self.0.parts.cors.layer())
            .with_state(self.clone());
        Ok(router)
    }

    /// Serves until the gateway stops; see [`connection`].
    ///
    /// # Errors
    /// If the document of its routes cannot be written.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        clients: Clients,
    ) -> serde_json::Result<()> {
        let parts = &self.0.parts;
        let delivery = Arc::clone(&parts.delivery);
        let stop = parts.hub.stop().clone();
        let memory = Arc::clone(parts.hub.memory());
        let router = self.router()?;
        let server = Server::new(router, delivery, clients, tls, parts.patience, memory, stop);
        server.run(listener).await;
        Ok(())
    }

    /// Readiness goes off: nobody shall be sent here any more.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }
}

/// All routes, each with its documentation: what is registered otherwise is refused by the guard.
fn routes() -> OpenApiRouter<Gateway> {
    files()
        .into_iter()
        .fold(openapi::head(), OpenApiRouter::merge)
}

/// The routes of each file.
fn files() -> Vec<OpenApiRouter<Gateway>> {
    vec![
        runs::router(),
        events::router(),
        text::router(),
        search::router(),
        ingest::router(),
        control::router(),
        agents::router(),
        jobs::router(),
        webhooks::router(),
        stream::router(),
        watch::router(),
        feed::router(),
        session::router(),
        oidc::router(),
        sessions::router(),
        stream_tickets::router(),
        tokens::router(),
        users::router(),
        identities::router(),
        roles::router(),
        audit::router(),
        health::router(),
        openapi::router(),
        page::router(),
    ]
}
