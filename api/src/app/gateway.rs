//! Starts the gateway: makes its parts, connects them, and starts the tasks that they need.
//!
//! Two tokens stop it. `stop` turns readiness off at once. `close_streams` follows after
//! `RUNCAST_DRAIN_DELAY`, when no load balancer sends new viewers here any more; streams and
//! background tasks end by it.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use prometheus_client::registry::Registry;
use runcast_access::Access;
use runcast_access::oidc::Oidc;
use runcast_access::rate_limit::RateLimiter;
use runcast_access::rate_limit::metrics::RateLimitMetrics;
use runcast_access::revocations::RevocationListener;
use runcast_common::run_users::RunUsers;
use runcast_fanout::Hub;
use runcast_fanout::memory::MemoryGuard;
use runcast_fanout::writer::{Metrics as WriterMetrics, WriterPool};
use runcast_gateway::server::connections::{ConnectionLimiter, Metrics as ConnectionMetrics};
use runcast_gateway::server::tls::Tls;
use runcast_gateway::{DirectRedis, Gateway, GatewayParts};
use runcast_history::History;
use runcast_history::archive::metrics::Metrics as ArchiveMetrics;
use runcast_history::archive::reader::Archive;
use runcast_history::reader::Reader;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::process::{App, Tasks};

impl App {
    pub(super) fn start_gateway(
        &mut self,
        tasks: &mut Tasks,
        tails: &TaskTracker,
        registry: &mut Registry,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let public_url = self.public_url()?;
        let Some(listener) = self.listener.take() else {
            bail!("the gateway has no listener");
        };
        // Streams close only when no new viewers come: after `stop`.
        let close_streams = CancellationToken::new();
        if let Some(url) = &self.settings.publish_redis
            && url.credentials().is_some()
        {
            warn!(
                "the user in RUNCAST_PUBLISH_REDIS_URL is not used any more: each token of a run gets \
                 a user of its own; remove it from the address, and from Redis"
            );
        }
        // The parts, each with its background tasks.
        let (hub, writers) = self.start_fanout(tasks, tails, registry, &close_streams)?;
        let access = self.start_access(tasks, registry, &close_streams)?;
        start_writers(tasks, &writers, &access, &close_streams);
        let limits = self.start_rate_limiter(tasks, registry, &close_streams);
        let connections = self.connection_limiter(registry);
        let oidc = self.settings.oidc.clone();
        // The gateway over them.
        let oidc = oidc.map(|settings| Oidc::new(settings, public_url.clone()));
        let gateway =
            Gateway::new(GatewayParts {
                oidc: oidc.transpose().context("RUNCAST_OIDC_ISSUER")?,
                access,
                store: self.store.clone(),
                redis: self.redis.clone(),
                keys: self.settings.keys.clone(),
                hub,
                writers,
                stall_timeout: self.settings.viewer_timeout,
                publish_redis: self.settings.publish_redis.clone().map(|url| {
                    DirectRedis::new(url, self.settings.keys.prefix(), self.run_users())
                }),
                public_url,
                cors: self.settings.cors.clone(),
                audit_reads: self.settings.audit_reads.0,
                egress_policy: self.settings.webhooks.allowed.clone(),
                limits,
            });
        // Drain on `stop`, serve until then.
        self.start_draining(tasks, gateway.clone(), close_streams, stop);
        let tls = self.settings.tls.as_ref().map(Tls::acceptor);
        tasks.spawn(async move {
            let served = gateway.serve(listener, tls, connections).await;
            served
                .map(|()| "gateway")
                .context("the API cannot be described")
        });
        Ok(())
    }

    /// The hub of watched runs and the threads that write to viewers.
    fn start_fanout(
        &self,
        tasks: &mut Tasks,
        tails: &TaskTracker,
        registry: &mut Registry,
        close_streams: &CancellationToken,
    ) -> anyhow::Result<(Arc<Hub>, Arc<WriterPool>)> {
        let metrics = WriterMetrics::default();
        metrics.register(registry);
        let limit = self.settings.memory_limit.map(|limit| limit.0);
        let memory = Arc::new(MemoryGuard::new(limit, metrics.shed()));
        let archive_metrics = ArchiveMetrics::default();
        archive_metrics.register_reading(registry);
        let archive = self.settings.archive.clone();
        let archive = Archive::new(self.store.clone(), archive, archive_metrics);
        let reader = Reader::new(
            self.redis.clone(),
            self.store.clone(),
            History::new(self.store.clone(), archive),
            self.settings.keys.clone(),
        );
        let hub = Hub::new(
            self.redis.clone(),
            self.settings.keys.clone(),
            reader,
            memory,
            metrics.false_wakeups(),
            tails.clone(),
            close_streams.clone(),
        );
        let wakeups = Arc::clone(&hub);
        tasks.spawn(async move {
            wakeups.receive_wakeups().await;
            Ok("wake-ups")
        });
        let feed = Arc::clone(hub.feed()).run(close_streams.clone());
        tasks.spawn(async move {
            feed.await;
            Ok("feed")
        });
        let guard = Arc::clone(&hub).guard_memory();
        tasks.spawn(async move {
            guard.await;
            Ok("memory guard")
        });
        let writers = WriterPool::new(&hub, self.settings.viewer_timeout, &metrics)
            .context("the threads that write to viewers cannot start")?;
        Ok((hub, writers))
    }

    /// Access control, with the tasks that publish its changes, apply them to open streams, and
    /// write the usage log.
    fn start_access(
        &self,
        tasks: &mut Tasks,
        registry: &mut Registry,
        close_streams: &CancellationToken,
    ) -> anyhow::Result<Access> {
        let access = Access::new(
            self.store.clone(),
            self.redis.clone(),
            self.settings.keys.clone(),
            self.settings.session_life,
            self.settings
                .publish_redis
                .as_ref()
                .map(|_| self.run_users()),
        )
        .context("access control cannot start")?;
        access.metrics().register(registry);
        if let Some((code, token)) = &self.sign_in {
            access.offer_sign_in_code(code, token);
        }
        let publishing = access.clone().propagate_changes(close_streams.clone());
        tasks.spawn(async move {
            publishing.await;
            Ok("publisher of access changes")
        });
        let revocations = RevocationListener::new(access.clone());
        let stop_listening = close_streams.clone();
        let revoking = async move { revocations.run(stop_listening).await };
        tasks.spawn(async move {
            revoking.await;
            Ok("listener for access changes")
        });
        let logging = access.clone().write_usage_log(close_streams.clone());
        tasks.spawn(async move {
            logging.await;
            Ok("usage log")
        });
        Ok(access)
    }

    fn run_users(&self) -> RunUsers {
        RunUsers::new(self.redis.clone(), self.settings.keys.clone())
    }

    fn start_rate_limiter(
        &self,
        tasks: &mut Tasks,
        registry: &mut Registry,
        close_streams: &CancellationToken,
    ) -> Arc<RateLimiter> {
        let metrics = RateLimitMetrics::default();
        metrics.register(registry);
        let (limits, redis) = (self.settings.limits.clone(), self.redis.clone());
        let limits = RateLimiter::new(limits, redis, self.settings.keys.clone(), metrics);
        let running = Arc::clone(&limits).run(close_streams.clone());
        tasks.spawn(async move {
            running.await;
            Ok("rate limiter")
        });
        limits
    }

    fn connection_limiter(&self, registry: &mut Registry) -> ConnectionLimiter {
        let metrics = ConnectionMetrics::default();
        metrics.register(registry);
        let limit = self.settings.limits.connections;
        ConnectionLimiter::new(self.settings.proxies.clone(), limit, metrics)
    }

    fn start_draining(
        &self,
        tasks: &mut Tasks,
        gateway: Gateway,
        close_streams: CancellationToken,
        stop: &CancellationToken,
    ) {
        let (stop, delay) = (stop.clone(), self.settings.drain_delay);
        tasks.spawn(async move {
            stop.cancelled().await;
            gateway.drain();
            tokio::time::sleep(delay).await;
            close_streams.cancel();
            Ok("drain")
        });
    }
}

fn start_writers(
    tasks: &mut Tasks,
    writers: &Arc<WriterPool>,
    access: &Access,
    close_streams: &CancellationToken,
) {
    let revocations = access.open_streams().revocations();
    let writing = Arc::clone(writers).run(close_streams.clone(), revocations);
    tasks.spawn(async move {
        let written = writing.await.map(|()| "writers");
        written.context("the threads that write to viewers failed")
    });
}
