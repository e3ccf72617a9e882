//! [`TransportSelector`]: picks the way out of the process, and changes over.
//!
//! With [`TransportChoice::Auto`] Redis comes first where the gateway hands out its address: it
//! must answer within [`OPEN_TIMEOUT`], and then each call within [`FALLBACK_DEADLINE`], else the
//! gateway takes over at once. From then on Redis is [probed](RedisProbe), first after
//! [`FIRST_PROBE`] and then up to [`MAX_PROBE_INTERVAL`] apart, and takes over again when it
//! answers. A Redis that refused the credentials is left alone for longer: it may accept the
//! connection and refuse each append. Each change costs one connection and a resend of what was not
//! acknowledged.
//!
//! The credentials for Redis may change while a run goes on, and so may its address. So the gateway
//! is asked anew how to publish when Redis refuses the credentials, and when it has been away for
//! [`REFRESH_AFTER`]; not more often than [`REFRESH_INTERVAL`]. Redis forgets the user of a run
//! when it restarts: asking creates it again, with the same credentials.
//!
//! [`ActiveTransport`] says which way is in use: commands take the same.

use std::time::Duration;

use runcast_common::backoff::Backoff;
use runcast_common::config::RedisUrl;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::{Keys, RunKeys};
use runcast_common::protocol::limits::REDIS_DEADLINE;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Connection, ConnectionError};
use super::gateway::GatewayConnection;
use super::redis::RedisConnection;
use crate::error::StartError;
use crate::gateway_client::{GatewayClient, ProducerOfRun};
use crate::target::Target;
use crate::transport_choice::TransportChoice;

/// How long Redis may take to accept a connection where the gateway is the alternative.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long Redis may take for a reply where the gateway is the alternative: a healthy server
/// replies within milliseconds, and a pause of a second is seen.
const FALLBACK_DEADLINE: Duration = Duration::from_millis(700);

/// Time to the first probe of a Redis that has just failed: it may only have restarted.
const FIRST_PROBE: Duration = Duration::from_millis(250);

/// Longest time between two probes of a Redis that is not in use.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// The same for a Redis that refuses the credentials even after the gateway was asked.
const MAX_REFUSED_INTERVAL: Duration = Duration::from_secs(300);

/// How long Redis may be away before the gateway is asked whether it has moved.
const REFRESH_AFTER: Duration = Duration::from_secs(30);

/// Shortest time between two questions to the gateway how to publish.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// The way that is in use.
#[derive(Debug, Clone, Default)]
pub(crate) enum ActiveTransport {
    /// None yet.
    #[default]
    None,
    Redis(Redis),
    Gateway(Box<GatewayClient>),
}

/// Where Redis is, and by which credentials.
#[derive(Debug, Clone)]
struct RedisRoute {
    url: RedisUrl,
    redis: Redis,
}

impl RedisRoute {
    fn new(url: &RedisUrl) -> Result<Self, StartError> {
        Ok(Self {
            redis: Redis::new(url)?,
            url: url.clone(),
        })
    }
}

/// Everything that is known about the ways out.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    choice: TransportChoice,
    keys: RunKeys,
    redis: Option<RedisRoute>,
    gateway: Option<GatewayClient>,
    /// Since when Redis has been away.
    away_since: Option<Instant>,
    /// Whether it refused the credentials.
    is_refused: bool,
    refreshed_at: Option<Instant>,
}

/// Picks the way, and changes over.
#[derive(Debug)]
pub(crate) struct TransportSelector {
    routes: Routes,
    producer: ProducerOfRun,
    active: watch::Sender<ActiveTransport>,
    /// Redis has failed, so the gateway comes first.
    prefers_gateway: bool,
    probe: Option<RedisProbe>,
    /// Why Redis is not in use, for the log.
    redis_trouble: String,
    /// Whether the log has said that the gateway stands in for Redis.
    is_diverted: bool,
}

impl TransportSelector {
    pub(crate) fn new(
        routes: Routes,
        producer: ProducerOfRun,
        active: watch::Sender<ActiveTransport>,
    ) -> Self {
        Self {
            routes,
            producer,
            active,
            prefers_gateway: false,
            probe: None,
            redis_trouble: String::new(),
            is_diverted: false,
        }
    }

    /// The way in use, for messages.
    pub(crate) fn describe(&self) -> String {
        match &*self.active.borrow() {
            ActiveTransport::Gateway(client) => client.display_url().to_owned(),
            ActiveTransport::Redis(redis) => redis.address().to_owned(),
            ActiveTransport::None => self.routes.describe(),
        }
    }

    /// Opens a connection by the best way that works.
    pub(crate) async fn connect(&mut self) -> Result<Connection, ConnectionError> {
        self.probe = None;
        let gateway = self.routes.gateway.clone();
        let uses_gateway = match self.routes.choice {
            TransportChoice::Gateway => true,
            TransportChoice::Redis => false,
            TransportChoice::Auto => self.prefers_gateway,
        };
        if let Some(client) = gateway.as_ref().filter(|_| uses_gateway) {
            return Ok(self.use_gateway(client));
        }
        match self.routes.open_redis().await {
            Ok(connection) => {
                self.use_redis();
                Ok(connection)
            }
            Err(error) => match gateway.filter(|_| self.routes.choice == TransportChoice::Auto) {
                Some(client) => {
                    self.redis_trouble = error.to_string();
                    Ok(self.use_gateway(&client))
                }
                None => Err(error),
            },
        }
    }

    fn use_redis(&mut self) {
        self.prefers_gateway = false;
        if let Some(route) = &self.routes.redis {
            if std::mem::take(&mut self.is_diverted) {
                tracing::info!(redis = route.redis.address(), "publishing to Redis again");
            }
            let active = ActiveTransport::Redis(route.redis.clone());
            self.active.send_replace(active);
        }
    }

    fn use_gateway(&mut self, client: &GatewayClient) -> Connection {
        let active = ActiveTransport::Gateway(Box::new(client.clone()));
        self.active.send_replace(active);
        if self.routes.choice == TransportChoice::Auto {
            if !std::mem::replace(&mut self.is_diverted, true) {
                tracing::info!(
                    gateway = client.display_url(),
                    reason = self.redis_trouble,
                    "Redis does not answer, publishing through the gateway"
                );
            }
            self.probe = Some(RedisProbe::start(self.routes.clone()));
        }
        Connection::Gateway(Box::new(GatewayConnection::new(client, self.producer)))
    }

    /// The connection in use has failed. Returns whether the other way is to be tried at once.
    pub(crate) fn on_failure(&mut self, error: &ConnectionError) -> bool {
        self.prefers_gateway = match error {
            ConnectionError::Gateway(_) => false,
            ConnectionError::Connect(_) | ConnectionError::Call(_) => {
                self.routes.on_redis_failure(error);
                self.redis_trouble = error.to_string();
                true
            }
        };
        self.routes.choice == TransportChoice::Auto
    }

    /// Waits until a better way than the one in use works, forever if there is none. Cancel safe.
    pub(crate) async fn better(&mut self) -> Connection {
        let Some(probe) = &mut self.probe else {
            return std::future::pending().await;
        };
        let (connection, routes) = probe.found().await;
        self.probe = None;
        self.routes = routes;
        self.use_redis();
        connection
    }
}

impl Routes {
    /// The ways to a target. Fails if its address of Redis cannot be used, or if there is no way.
    pub(crate) fn new(target: &Target) -> Result<Self, StartError> {
        let uses_redis = target.transport != TransportChoice::Gateway;
        let redis = target.redis.as_ref().filter(|_| uses_redis);
        let redis = redis.map(RedisRoute::new).transpose()?;
        let choice = match (target.transport, &redis, &target.gateway) {
            (TransportChoice::Redis, None, _) => return Err(StartError::NoRedis),
            (_, None, None) | (TransportChoice::Gateway, _, None) => {
                return Err(StartError::NoGateway);
            }
            (_, None, Some(_)) => TransportChoice::Gateway,
            (_, Some(_), None) => TransportChoice::Redis,
            (choice, Some(_), Some(_)) => choice,
        };
        Ok(Self {
            choice,
            keys: Keys::new(&target.prefix).run(target.run),
            redis,
            gateway: target.gateway.clone(),
            away_since: None,
            is_refused: false,
            refreshed_at: None,
        })
    }

    /// The gateway, if there is one.
    pub(crate) const fn gateway(&self) -> Option<&GatewayClient> {
        self.gateway.as_ref()
    }

    /// The keys of the run.
    pub(crate) const fn keys(&self) -> &RunKeys {
        &self.keys
    }

    fn describe(&self) -> String {
        match (&self.redis, &self.gateway) {
            (Some(route), _) => route.redis.address().to_owned(),
            (None, Some(client)) => client.display_url().to_owned(),
            (None, None) => String::new(),
        }
    }

    fn on_redis_failure(&mut self, error: &ConnectionError) {
        self.away_since.get_or_insert_with(Instant::now);
        self.is_refused |= error.is_refused();
    }

    /// Connects to Redis, by new credentials where the old ones seem to be of no use.
    async fn open_redis(&mut self) -> Result<Connection, ConnectionError> {
        // Credentials that were refused may still open a connection, and only not append.
        if self.is_refused {
            self.refresh().await;
        }
        let Some(route) = &self.redis else {
            return std::future::pending().await;
        };
        let opened = self.open(route).await;
        let error = match opened {
            Ok(connection) => {
                (self.away_since, self.is_refused) = (None, false);
                return Ok(connection);
            }
            Err(error) => error,
        };
        self.on_redis_failure(&error);
        match self.refresh().await {
            true => match &self.redis {
                Some(route) => self.open(route).await,
                None => Err(error),
            },
            false => Err(error),
        }
    }

    async fn open(&self, route: &RedisRoute) -> Result<Connection, ConnectionError> {
        let has_alternative = self.choice == TransportChoice::Auto;
        let (limit, deadline) = match has_alternative {
            true => (OPEN_TIMEOUT, FALLBACK_DEADLINE),
            false => (REDIS_DEADLINE * 2, REDIS_DEADLINE),
        };
        let opening = RedisConnection::open(&route.redis, &self.keys, deadline);
        match timeout(limit, opening).await {
            Ok(opened) => opened.map(|opened| Connection::Redis(Box::new(opened))),
            Err(_elapsed) => Err(ConnectionError::Connect(route.redis.timed_out(limit))),
        }
    }

    /// Asks the gateway how to publish, if that is due. Returns whether Redis may answer otherwise
    /// now.
    async fn refresh(&mut self) -> bool {
        let is_away = self
            .away_since
            .is_some_and(|since| since.elapsed() >= REFRESH_AFTER);
        let may_ask = self
            .refreshed_at
            .is_none_or(|at| at.elapsed() >= REFRESH_INTERVAL);
        let Some(client) = self.gateway.as_ref() else {
            return false;
        };
        if !may_ask || !(self.is_refused || is_away) {
            return false;
        }
        self.refreshed_at = Some(Instant::now());
        let session = match client.join_run(self.keys.run).await {
            Ok(session) => session,
            Err(error) => {
                tracing::debug!(%error, "cannot ask the gateway anew how to publish");
                return false;
            }
        };
        let Some(url) = session.redis_url() else {
            return false;
        };
        let identity = |url: &RedisUrl| {
            let ca = url.ca().map(|ca| ca.pem().to_owned());
            (url.expose().to_owned(), ca)
        };
        let known = self.redis.as_ref().map(|route| identity(&route.url));
        if known == Some(identity(url)) {
            return self.is_refused;
        }
        match RedisRoute::new(url) {
            Ok(route) => {
                tracing::info!(
                    redis = route.redis.address(),
                    "the gateway hands out another Redis, or other credentials"
                );
                self.redis = Some(route);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the address of Redis that the gateway hands out is of no use");
                false
            }
        }
    }
}

/// Tries Redis from time to time while the gateway is in use.
#[derive(Debug)]
struct RedisProbe(AbortOnDropHandle<(Connection, Routes)>);

impl RedisProbe {
    fn start(mut routes: Routes) -> Self {
        Self(AbortOnDropHandle::new(tokio::spawn(async move {
            // With jitter: agents that lost Redis together do not come back together.
            // Credentials that were refused are refused again, at least for a while.
            let mut backoff = match routes.is_refused {
                true => Backoff::new(MAX_PROBE_INTERVAL, MAX_REFUSED_INTERVAL),
                false => Backoff::new(FIRST_PROBE, MAX_PROBE_INTERVAL),
            };
            loop {
                sleep(backoff.next_wait()).await;
                match routes.open_redis().await {
                    Ok(connection) => return (connection, routes),
                    Err(error) => tracing::debug!(%error, "Redis does not answer yet"),
                }
            }
        })))
    }

    /// Waits until Redis answers. Cancel safe.
    async fn found(&mut self) -> (Connection, Routes) {
        match (&mut self.0).await {
            Ok(found) => found,
            // It panicked, or the runtime ends: the gateway stays in use.
            Err(_ended) => std::future::pending().await,
        }
    }
}
