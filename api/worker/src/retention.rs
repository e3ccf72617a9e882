//! The job that removes runs and audit entries that are too old, by [`crate::retention_rules`].
//!
//! Where all runs of a day are too old, their partition is dropped. Otherwise runs are removed one
//! by one, their rows in bounded steps. A run with a living agent stays, and so does one on hold.
//! The archived objects of a run are removed with it: the transaction that removes the run marks
//! them as leaving, and [`archive`] deletes them afterwards.

use chrono::Utc;
use tracing::{info, warn};

use crate::archive;
use crate::error::TaskError;
use crate::worker::Worker;

/// Removes all runs and audit entries that are too old.
pub(crate) async fn remove_old(worker: &Worker) -> Result<(), TaskError> {
    let store = &worker.store;
    // The audit log first: nothing that runs may have to wait for delays it.
    if let Some(age) = worker.settings.retention.audit.age() {
        let entries = store.remove_audit_before(age.horizon(Utc::now())).await?;
        if entries > 0 {
            info!(entries, "removed audit entries that are too old");
        }
    }
    if let Some(horizons) = worker.settings.retention.horizons() {
        for day in store.days_before(&horizons).await? {
            let removed = store.remove_from_day(&day, &horizons).await?;
            if removed.runs > 0 || removed.whole {
                let (runs, whole) = (removed.runs, removed.whole);
                info!(day = %day.day, runs, whole, "removed runs that are too old");
            }
            if let Some(run) = removed.lives {
                warn!(day = %day.day, %run, "keeping a run that is too old: it has a living agent");
            }
        }
        let rows = store.remove_rows_of_gone_runs().await?;
        if rows > 0 {
            info!(rows, "removed the events of removed runs");
        }
    }
    archive::delete_leaving_objects(worker, None).await
}
