//! Wires the persister: consumers of the ready queue, the dispatcher with its cycles, the memory
//! monitor, and the wake-ups of agents that may not write to the queue.
//!
//! Any number of persisters may run. The consumer group spreads runs over them, and other
//! persisters claim the runs of a dead one. If two persisters work on the same run, both read it,
//! but the watermark lock in Postgres lets only one of them store it; the other finds nothing to
//! do. A persister acknowledges and trims nothing before its transaction is committed.
//!
//! Bounds: one unread reply for each consumer, plus what [`crate::dispatch`] and [`crate::cycle`]
//! name.

use futures::FutureExt as _;
use futures::future::join_all;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use runcast_common::scripts::LiveWindow;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cycle::Cycle;
use crate::dispatch::dispatch;
use crate::memory_budget::{MemoryBudget, MemoryPressure};
use crate::memory_monitor::MemoryMonitor;
use crate::metrics::Metrics;
use crate::ready_guard::ReadyGuard;
use crate::ready_queue::ReadyConsumer;
use crate::settle::Settler;
use crate::woken_runs::WokenRuns;
use runcast_store::Store;

/// Stores what producers append.
#[derive(Debug)]
pub struct Persister {
    redis: Redis,
    store: Store,
    keys: Keys,
    window: LiveWindow,
    budget: MemoryBudget,
    metrics: Metrics,
}

impl Persister {
    /// A persister that leaves `window` of each run in Redis for viewers, and keeps Redis within
    /// `budget`.
    pub const fn new(
        redis: Redis,
        store: Store,
        keys: Keys,
        window: LiveWindow,
        budget: MemoryBudget,
        metrics: Metrics,
    ) -> Self {
        Self {
            redis,
            store,
            keys,
            window,
            budget,
            metrics,
        }
    }

    /// Runs until `stop`. It then finishes the runs it has claimed, unless Redis or Postgres is
    /// down.
    pub async fn run(self, stop: CancellationToken) {
        // The monitor sets the pressure, the settler obeys it.
        let pressure = MemoryPressure::default();
        let guard = ReadyGuard::new(self.redis.clone(), self.keys.clone(), self.metrics.clone());
        let cycle = Cycle {
            redis: self.redis.clone(),
            store: self.store.clone(),
            keys: self.keys.clone(),
            settler: Settler::new(
                self.redis.clone(),
                self.store,
                self.keys.clone(),
                self.window,
                pressure.clone(),
                self.metrics.clone(),
            ),
            metrics: self.metrics.clone(),
        };

        // Each consumer has room for one reply, so none waits for another.
        let consumers = ReadyConsumer::all(&self.redis, &self.keys, &guard);
        let (sender, claimed) = mpsc::channel(consumers.len());
        let consuming = consumers.into_iter().map(|consumer| {
            let (metrics, stop) = (self.metrics.clone(), stop.clone());
            consumer.run(sender.clone(), metrics, stop)
        });
        let consuming = join_all(consuming);
        drop(sender);

        let woken = WokenRuns::new(self.redis.clone(), self.keys.clone());
        let monitor = MemoryMonitor::new(
            self.redis,
            self.keys,
            self.budget,
            pressure,
            self.window,
            guard,
            self.metrics,
        );
        // Boxed: through so many layers the compiler does not see that they are `Send`.
        let (consumers, (), (), ()) = tokio::join!(
            consuming.boxed(),
            dispatch(cycle, claimed, stop.clone()).boxed(),
            woken.run(stop.clone()).boxed(),
            monitor.run(stop).boxed(),
        );
        // Last, since a consumer is only removed when its entries are acknowledged.
        join_all(consumers.into_iter().map(ReadyConsumer::deregister))
            .boxed()
            .await;
    }
}
