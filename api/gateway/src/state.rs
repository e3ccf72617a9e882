//! What all routes share: stores, access, the hub of watched runs, limits, and whether the gateway
//! drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use url::Url;

use crate::direct_redis::DirectRedis;
use crate::origins::Origins;
use crate::problem::Problem;
use crate::readiness::Health;
use runcast_access::oidc::Oidc;
use runcast_access::principal::Principal;
use runcast_access::rate_limit::RateLimiter;
use runcast_access::run_labels::{RunLabels, RunVisibility};
use runcast_access::{Access, Scope};
use runcast_fanout::Hub;
use runcast_fanout::writer::WriterPool;
use runcast_store::Store;
use runcast_webhooks::egress::EgressPolicy;

/// What all routes share. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Gateway(pub(crate) Arc<Shared>);

/// What a gateway is made of.
#[derive(Debug)]
pub struct GatewayParts {
    /// Postgres.
    pub store: Store,
    /// Redis.
    pub redis: Redis,
    /// The keys there.
    pub keys: Keys,
    /// The tails of watched runs.
    pub hub: Arc<Hub>,
    /// The threads that write to the sockets of viewers.
    pub writers: Arc<WriterPool>,
    /// How long a client may read nothing of what is sent to it.
    pub stall_timeout: Duration,
    /// Authentication and authorization.
    pub access: Access,
    /// The Redis that agents may publish to; without it they publish through the gateway alone.
    pub publish_redis: Option<DirectRedis>,
    /// The address at which browsers reach the gateway.
    pub public_url: Url,
    /// Origins whose pages may call the API, besides its own.
    pub cors: Origins,
    /// Whether reads are recorded in the audit log.
    pub audit_reads: bool,
    /// Where webhooks may lead.
    pub egress_policy: EgressPolicy,
    /// Rate limits, and limits of open streams.
    pub limits: Arc<RateLimiter>,
    /// The OpenID Connect provider, if users can sign in with one.
    pub oidc: Option<Oidc>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) parts: GatewayParts,
    health: Health,
    labels: RunLabels,
    draining: AtomicBool,
}

impl Gateway {
    /// A gateway made of these parts.
    pub fn new(parts: GatewayParts) -> Self {
        let (redis, store) = (parts.redis.clone(), parts.store.clone());
        Self(Arc::new(Shared {
            labels: RunLabels::new(store.clone()),
            health: Health::new(redis, store, parts.keys.clone()),
            parts,
            draining: AtomicBool::new(false),
        }))
    }

    /// Postgres.
    pub fn store(&self) -> &Store {
        &self.0.parts.store
    }

    /// Authentication and authorization.
    pub fn access(&self) -> &Access {
        &self.0.parts.access
    }

    pub(crate) fn run_labels(&self) -> &RunLabels {
        &self.0.labels
    }

    /// Which runs a principal may read.
    pub(crate) fn visibility(&self, principal: &Principal) -> Result<RunVisibility, Problem> {
        Ok(RunVisibility {
            visible: principal.visible(Scope::Read)?,
            labels: self.0.labels.clone(),
        })
    }

    pub(crate) fn redis(&self) -> &Redis {
        &self.0.parts.redis
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.parts.keys
    }

    pub(crate) fn audits_reads(&self) -> bool {
        self.0.parts.audit_reads
    }

    /// Rate limits, and limits of open streams.
    pub fn limits(&self) -> &RateLimiter {
        &self.0.parts.limits
    }

    pub(crate) fn oidc(&self) -> Option<&Oidc> {
        self.0.parts.oidc.as_ref()
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0.parts.hub
    }

    pub(crate) fn publish_redis(&self) -> Option<&DirectRedis> {
        self.0.parts.publish_redis.as_ref()
    }

    pub(crate) fn egress_policy(&self) -> &EgressPolicy {
        &self.0.parts.egress_policy
    }

    pub(crate) fn public_url(&self) -> &Url {
        &self.0.parts.public_url
    }

    /// Whether browsers reach the gateway by https.
    pub fn is_secure(&self) -> bool {
        self.0.parts.public_url.scheme() == "https"
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Turns readiness off, so that load balancers send no more clients here.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }
}
