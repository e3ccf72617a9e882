//! One process: prepared, run and stopped.
//!
//! The process owns every task. One that ends before it is told to ends the whole program with an
//! error, so that its supervisor restarts it and no half of it dies unseen.
//!
//! To stop, readiness goes off, streams close, connections drain, and the persister finishes its
//! cycle: all of that within [`STOP_DEADLINE`].

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use prometheus_client::registry::Registry;
use runcast_common::connect::Redis;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};
use url::Url;

use runcast_access::secret::Secret;
use runcast_gateway::readiness::Health;
use runcast_store::Store;

use crate::metrics;
use crate::preflight;
use crate::settings::Settings;

/// Longest time for everything to stop. Kubernetes kills after 30 s.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Connections that may wait to be accepted. The kernel reduces it to `net.core.somaxconn` (4096 by
/// default) where that is less. A client that finds no room tries again after 1 s, 3 s and 7 s, and
/// after an outage thousands of viewers come back at once.
const MAX_PENDING_CONNECTIONS: u32 = 65_535;

/// What a process does: one service, or with `runcastd dev` all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Serves HTTP.
    Gateway,
    /// Stores events from Redis in Postgres.
    Persister,
    /// Does scheduled work.
    Worker,
}

impl Service {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Persister => "persister",
            Self::Worker => "worker",
        }
    }
}

/// A process whose ports are bound and whose servers are checked.
#[derive(Debug)]
pub struct App {
    pub(super) settings: Settings,
    pub(super) redis: Redis,
    pub(super) store: Store,
    pub(super) listener: Option<TcpListener>,
    /// A code that signs in once, and the token that it signs in as.
    pub(super) sign_in: Option<(Secret, Secret)>,
    metrics: Option<TcpListener>,
    services: Vec<Service>,
}

impl App {
    /// Binds its ports first, so that a mistake shows in the first second, then checks that Redis
    /// and Postgres answer and fit this program. Errors name the setting.
    pub async fn prepare(settings: Settings, services: &[Service]) -> anyhow::Result<Self> {
        let listener = if services.contains(&Service::Gateway) {
            Some(listen("RUNCAST_LISTEN", settings.listen)?)
        } else {
            None
        };
        let metrics = settings.metrics_listen;
        let metrics = metrics.map(|address| listen("RUNCAST_METRICS_LISTEN", address));
        let metrics = metrics.transpose()?;
        let redis = Redis::new(&settings.redis).context("REDIS_URL")?;
        let store = Store::new(&settings.postgres, "runcastd").context("DATABASE_URL")?;
        let servers = preflight::redis(&redis, settings.environment).await?;
        info!(servers, "Redis is fit for use");
        preflight::postgres(&store, &settings.postgres).await?;
        if let Some(oidc) = settings.oidc.as_ref().filter(|_| listener.is_some()) {
            oidc.check_role(&store).await?;
        }
        Ok(Self {
            settings,
            redis,
            store,
            listener,
            sign_in: None,
            metrics,
            services: services.to_vec(),
        })
    }

    /// How browsers reach the gateway: `RUNCAST_PUBLIC_URL`, else where it listens. An error if the
    /// process has no gateway.
    pub fn public_url(&self) -> anyhow::Result<Url> {
        if let Some(url) = &self.settings.public_url {
            return Ok(url.clone());
        }
        self.url_of(self.gateway_address()?)
    }

    /// How programs on this machine reach the gateway: at its loopback address if it listens on
    /// all.
    pub fn local_url(&self) -> anyhow::Result<Url> {
        let mut address = self.gateway_address()?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        self.url_of(address)
    }

    fn gateway_address(&self) -> anyhow::Result<SocketAddr> {
        let listener = self.listener.as_ref();
        let listener = listener.context("this process has no gateway")?;
        Ok(listener.local_addr()?)
    }

    fn url_of(&self, address: SocketAddr) -> anyhow::Result<Url> {
        let scheme = self.settings.tls.as_ref().map_or("http", |_| "https");
        Ok(Url::parse(&format!("{scheme}://{address}/"))?)
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are served, if they are.
    pub fn metrics_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.metrics
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
    }

    /// Lets this code sign in once, as the holder of this token; see
    /// [`runcast_access::Access::offer_sign_in_code`].
    pub fn offer_sign_in(&mut self, code: Secret, token: Secret) {
        self.sign_in = Some((code, token));
    }

    /// Runs the services until `stop`, then stops them in an orderly way. An error if a service
    /// ends by itself.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        // Tails of watched runs come and go with their viewers, and end with `stop`.
        let tails = TaskTracker::new();
        let services = std::mem::take(&mut self.services);
        let names: Vec<&str> = services.iter().map(|service| service.name()).collect();
        // Start the services, and then /metrics with what they have registered.
        let mut registry = metrics::registry(&names.join(","));
        metrics::servers(&mut registry, &self.redis, &self.store);
        let persister = services.contains(&Service::Persister);
        for service in services {
            match service {
                Service::Gateway => {
                    self.start_gateway(&mut tasks, &tails, &mut registry, &stop)?;
                }
                Service::Persister => self.start_persister(&mut tasks, &mut registry, &stop),
                Service::Worker => self.start_worker(&mut tasks, &mut registry, &stop),
            }
        }
        self.start_metrics(&mut tasks, registry, persister, &stop);
        let outcome = supervise(&mut tasks, &stop).await;
        // Stop what still runs; the store closes last.
        stop.cancel();
        tails.close();
        let stopping = async {
            while let Some(ended) = tasks.join_next().await {
                log_end(ended);
            }
            tails.wait().await;
            self.store.close().await;
        };
        if tokio::time::timeout(STOP_DEADLINE, stopping).await.is_err() {
            error!("not everything stopped within {STOP_DEADLINE:?}");
        }
        outcome
    }

    fn start_metrics(
        &mut self,
        tasks: &mut Tasks,
        registry: Registry,
        persister: bool,
        stop: &CancellationToken,
    ) {
        let Some(listener) = self.metrics.take() else {
            return;
        };
        let (redis, store) = (self.redis.clone(), self.store.clone());
        let health = Health::new(redis, store, self.settings.keys.clone());
        let health = metrics::health_routes(health, persister, stop.clone());
        let serving = metrics::serve(listener, registry, health, stop.clone());
        tasks.spawn(async move {
            let served = serving.await;
            served.map(|()| "metrics").context("/metrics failed")
        });
    }
}

/// Binds a port; its error names the setting.
fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // A restarted gateway need not wait until the connections of its predecessor are gone.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(MAX_PENDING_CONNECTIONS)
    };
    bound().with_context(|| format!("{setting}: cannot listen on {address}"))
}

/// All tasks of a process; each returns its name when it ends.
pub(super) type Tasks = JoinSet<anyhow::Result<&'static str>>;

/// Waits for `stop`, or for a task that ends before it.
async fn supervise(tasks: &mut Tasks, stop: &CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        // After `stop` tasks end because they are meant to.
        biased;
        () = stop.cancelled() => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(name))) => bail!("the {name} task ended by itself"),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(panic).context("a task panicked"),
            None => bail!("no service was started"),
        },
    }
}

fn log_end(ended: Result<anyhow::Result<&'static str>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(name)) => info!(name, "stopped"),
        Ok(Err(error)) => error!(
            error = format!("{error:#}"),
            "did not stop in an orderly way"
        ),
        Err(panic) => error!(%panic, "panicked while stopping"),
    }
}
