//! [`LabelledRuns`]: the newest runs with some labels, looked up once for all who watch them.
//!
//! Viewers with the same labels and the same rights share a lookup that is at most [`MAX_AGE`] old,
//! so a thousand of them cost Postgres what one costs. Who comes during a lookup waits for it.
//!
//! Data: ids of at most [`MAX_RUNS`] runs for each set of labels and rights, [`MAX_SETS`] of them;
//! those that were not asked for within [`UNUSED_LIFE`] are dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runcast_store::visibility::Visible;
use runcast_store::{Store, StoreError};
use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

/// The newest runs with the labels that are considered. Among them are those that a viewer that
/// reconnects has watched.
const MAX_RUNS: u16 = 200;

/// How long a lookup is shared: as long as a viewer waits between two.
const MAX_AGE: Duration = Duration::from_secs(2);

/// Sets of labels and rights. Beyond them a viewer looks up by itself.
const MAX_SETS: usize = 1000;

/// When a set is dropped that no viewer asks for.
const UNUSED_LIFE: Duration = Duration::from_secs(60);

/// Runs, newest first, each with whether it is open.
type Found = Arc<[(Uuid, bool)]>;

/// Shares lookups.
#[derive(Debug, Default)]
pub(super) struct LabelledRuns {
    sets: Mutex<HashMap<SetKey, Arc<SharedLookup>>>,
}

/// Labels and rights, as JSON.
type SetKey = (String, String);

#[derive(Debug)]
struct SharedLookup {
    used_at: Mutex<Instant>,
    last: tokio::sync::Mutex<Option<(Instant, Found)>>,
}

/// Runs that a viewer watches by their labels.
#[derive(Debug)]
pub(super) struct LabelQuery {
    pub(super) store: Store,
    pub(super) shared: Arc<LabelledRuns>,
    pub(super) labels: Map<String, Value>,
    pub(super) visible: Visible,
}

impl LabelledRuns {
    fn lookup(&self, key: SetKey) -> Arc<SharedLookup> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= MAX_SETS {
            sets.retain(|_, lookup| lookup.used_at().elapsed() < UNUSED_LIFE);
        }
        let new = || Arc::new(SharedLookup::new());
        let lookup = match sets.len() < MAX_SETS || sets.contains_key(&key) {
            true => Arc::clone(sets.entry(key).or_insert_with(new)),
            false => new(),
        };
        *lookup
            .used_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
        lookup
    }
}

impl SharedLookup {
    fn new() -> Self {
        Self {
            used_at: Mutex::new(Instant::now()),
            last: tokio::sync::Mutex::default(),
        }
    }

    fn used_at(&self) -> Instant {
        *self.used_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LabelQuery {
    /// The newest runs with these labels, each with whether it is open. At most [`MAX_AGE`] old.
    pub(super) async fn newest(&self) -> Result<Found, StoreError> {
        let labels = Value::Object(self.labels.clone()).to_string();
        let lookup = self.shared.lookup((labels, self.visible.to_key()));
        let mut last = lookup.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < MAX_AGE
        {
            return Ok(Arc::clone(found));
        }
        let found = self
            .store
            .labelled_runs(&self.labels, &self.visible, MAX_RUNS);
        let found: Found = found.await?.into();
        *last = Some((Instant::now(), Arc::clone(&found)));
        Ok(found)
    }
}
