//! [`RunLabels`]: the labels of runs, for principals whose rights depend on labels. The labels of a
//! run never change, so what was read once stays valid. At most [`MAX_CACHED_RUNS`] runs are
//! remembered.

use std::sync::Arc;

use quick_cache::sync::Cache;
use runcast_store::visibility::Visible;
use runcast_store::{Store, StoreError};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Runs that are remembered: a few hundred bytes each.
const MAX_CACHED_RUNS: usize = 10_000;

/// Reads the labels of runs. Cloning is cheap; clones share their memory.
#[derive(Debug, Clone)]
pub struct RunLabels {
    store: Store,
    cached: Arc<Cache<Uuid, Arc<Map<String, Value>>>>,
}

impl RunLabels {
    /// The labels of the runs in this database.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            cached: Arc::new(Cache::new(MAX_CACHED_RUNS)),
        }
    }

    /// The labels of a run; none if there is no such run.
    pub async fn of(&self, run: Uuid) -> Result<Option<Arc<Map<String, Value>>>, StoreError> {
        if let Some(cached) = self.cached.get(&run) {
            return Ok(Some(cached));
        }
        let labels = self.store.run_labels(run).await?.map(Arc::new);
        if let Some(labels) = &labels {
            self.cached.insert(run, Arc::clone(labels));
        }
        Ok(labels)
    }
}

/// Which runs a principal may see.
#[derive(Debug, Clone)]
pub struct RunVisibility {
    /// The runs, by id or by label.
    pub visible: Visible,
    /// Where to read labels.
    pub labels: RunLabels,
}

impl RunVisibility {
    /// Whether a run may be seen. Reads its labels only if they decide.
    pub async fn sees(&self, run: Uuid) -> Result<bool, StoreError> {
        if !self.visible.needs_labels() {
            return Ok(self.visible.admits(run, &Map::new()));
        }
        let labels = self.labels.of(run).await?.unwrap_or_default();
        Ok(self.visible.admits(run, &labels))
    }
}
