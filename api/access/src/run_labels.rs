//! The labels of runs, for those who may see runs with some labels alone. They never change, so what was read once is true
//! for good; the last [`MOST`] are remembered.

use std::sync::Arc;

use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use uuid::Uuid;

use runcast_store::visibility::Visible;
use runcast_store::{Store, StoreError};

/// Runs that are remembered: a few hundred bytes each.
const MOST: usize = 10_000;

/// Looks labels up. Cloning is cheap; clones remember together.
#[derive(Debug, Clone)]
pub struct RunLabels {
    store: Store,
    known: Arc<Cache<Uuid, Arc<Map<String, Value>>>>,
}

impl RunLabels {
    /// Of the runs in this database.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            known: Arc::new(Cache::new(MOST)),
        }
    }

    /// The labels of a run, if there is such a one.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not be asked.
    pub async fn of(&self, run: Uuid) -> Result<Option<Arc<Map<String, Value>>>, StoreError> {
        if let Some(known) = self.known.get(&run) {
            return Ok(Some(known));
        }
        let labels = self.store.run_labels(run).await?.map(Arc::new);
        if let Some(labels) = &labels {
            self.known.insert(run, Arc::clone(labels));
        }
        Ok(labels)
    }
}

/// What somebody may see.
#[derive(Debug, Clone)]
pub struct RunVisibility {
    /// Which runs ...
    pub visible: Visible,
    /// ... by which labels.
    pub labels: RunLabels,
}

impl RunVisibility {
    /// True if a run is to be seen.
    ///
    /// # Errors
    /// [`StoreError`] if its labels decide and could not be looked up.
    pub async fn sees(&self, run: Uuid) -> Result<bool, StoreError> {
        if !self.visible.asks_labels() {
            return Ok(self.visible.admits(run, &Map::new()));
        }
        let labels = self.labels.of(run).await?.unwrap_or_default();
        Ok(self.visible.admits(run, &labels))
    }
}
