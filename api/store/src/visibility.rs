//! Which runs somebody may see, as a condition of lists.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::store::{Store, StoreError};

/// Runs within at least one of some bounds, or all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Visible {
    /// None: all runs.
    bounds: Option<Vec<Bound>>,
}

/// One run, runs with all of some labels, or both together; with neither, all.
type Bound = (Option<Uuid>, Option<Map<String, Value>>);

/// The condition for a table `r` of runs; `$N` is [`Visible::parameter`].
pub(super) fn condition(parameter: usize) -> String {
    format!(
        "(${parameter}::jsonb IS NULL OR EXISTS (
            SELECT 1 FROM jsonb_to_recordset(${parameter}) AS b (run uuid, labels jsonb)
             WHERE (b.run IS NULL OR b.run = r.id) AND (b.labels IS NULL OR r.labels @> b.labels)))"
    )
}

impl Visible {
    /// Runs within any of these bounds.
    pub fn within(bounds: impl Iterator<Item = Bound>) -> Self {
        let bounds: Vec<Bound> = bounds.collect();
        let all = bounds
            .iter()
            .any(|(run, labels)| run.is_none() && labels.is_none());
        Self {
            bounds: (!all).then_some(bounds),
        }
    }

    /// True if a run is among them; its labels are only looked at where they matter.
    pub fn admits(&self, run: Uuid, labels: &Map<String, Value>) -> bool {
        let Some(bounds) = &self.bounds else {
            return true;
        };
        let within = |(only, wanted): &Bound| {
            only.is_none_or(|only| only == run)
                && wanted
                    .iter()
                    .flatten()
                    .all(|(name, value)| labels.get(name) == Some(value))
        };
        bounds.iter().any(within)
    }

    /// True if the labels of runs decide.
    pub fn asks_labels(&self) -> bool {
        let bounds = self.bounds.iter().flatten();
        bounds.into_iter().any(|(_, labels)| labels.is_some())
    }

    pub(super) fn parameter(&self) -> Option<Value> {
        let bounds = self.bounds.as_ref()?.iter();
        Some(
            bounds
                .map(|(run, labels)| json!({"run": run, "labels": labels}))
                .collect(),
        )
    }
}

impl Store {
    /// The labels of a run, if there is such a one. They never change.
    pub async fn run_labels(&self, run: Uuid) -> Result<Option<Map<String, Value>>, StoreError> {
        let labels: Option<sqlx::types::Json<Map<String, Value>>> =
            sqlx::query_scalar("SELECT labels FROM runs WHERE id = $1")
                .bind(run)
                .fetch_optional(&self.pool)
                .await?;
        Ok(labels.map(|labels| labels.0))
    }
}
