//! Puts the services together, and is the only place that starts long-lived tasks.
//!
//! Every task has an owner here: one that ends before it was told to makes the whole program end with
//! an error, so that whoever supervises it starts it again instead of half of it dying unseen.
//!
//! To stop: readiness goes off, streams are told to close, connections drain, the persister finishes
//! its cycle; all of that within [`STOP_DEADLINE`].

use std::net::SocketAddr;
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

use runcast_gateway::readiness::Health;
use runcast_store::Store;

use crate::config::Settings;
use crate::metrics;
use crate::preflight;

/// How long everything may take to stop. Kubernetes kills after 30 s.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Connections that may wait to be let in; the kernel makes it `net.core.somaxconn` (4096) where that is less. Whoever finds
/// no room tries again after a second, three, seven, and after an outage thousands of viewers come back at once.
const BACKLOG: u32 = 65_535;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// HTTP.
    Gateway,
    /// Redis to Postgres.
    Persister,
    /// Background tasks.
    Worker,
}

impl Service {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Persister => "persister",
            Self::Worker => "worker",
        }
    }
}

/// A process that is about to work.
#[derive(Debug)]
pub struct App {
    pub(super) settings: Settings,
    pub(super) redis: Redis,
    pub(super) store: Store,
    pub(super) listener: Option<TcpListener>,
    metrics: Option<TcpListener>,
    services: Vec<Service>,
}

impl App {
    /// Binds its ports first, so that a mistake shows in the first second, then checks that Redis and
    /// Postgres are there and fit this program.
    ///
    /// # Errors
    /// Names the setting that is wrong or the server that cannot be reached.
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
        info!(servers, "Redis is fit for the work");
        preflight::postgres(&store, &settings.postgres).await?;
        if let Some(oidc) = settings.oidc.as_ref().filter(|_| listener.is_some()) {
            oidc.check_role(&store).await?;
        }
        Ok(Self {
            settings,
            redis,
            store,
            listener,
            metrics,
            services: services.to_vec(),
        })
    }

    /// How browsers reach the gateway; by default where it listens.
    ///
    /// # Errors
    /// If the process has no gateway.
    pub fn public_url(&self) -> anyhow::Result<Url> {
        if let Some(url) = &self.settings.public_url {
            return Ok(url.clone());
        }
        let Some(listener) = &self.listener else {
            bail!("this process has no gateway");
        };
        let address = listener.local_addr()?;
        let scheme = self.settings.tls.as_ref().map_or("http", |_| "https");
        Ok(Url::parse(&format!("{scheme}://{address}/"))?)
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are served beside the gateway, if they are.
    ///
    /// # Errors
    /// If the listener does not know its own address.
    pub fn metrics_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.metrics
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
    }

    /// Works until `stop`, then stops in an orderly way.
    ///
    /// # Errors
    /// If a service ended although nobody told it to.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        // Viewers' tails: they come and go, and end with `stop`.
        let tails = TaskTracker::new();
        let services = std::mem::take(&mut self.services);
        let names: Vec<&str> = services.iter().map(|service| service.name()).collect();
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
        // A gateway that is started again need not wait for its predecessor's connections.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().with_context(|| format!("{setting}: cannot listen on {address}"))
}

/// Named when they end.
pub(super) type Tasks = JoinSet<anyhow::Result<&'static str>>;

/// Waits until told to stop, or until a task ends before that.
async fn supervise(tasks: &mut Tasks, stop: &CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        // Once told to stop, tasks end because they are meant to.
        biased;
        () = stop.cancelled() => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(name))) => bail!("the {name} ended by itself"),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(panic).context("a service died"),
            None => bail!("there is nothing to do"),
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
        Err(panic) => error!(%panic, "died while stopping"),
    }
}
