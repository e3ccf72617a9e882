//! Which runs a caller may see, as a condition for lists.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::StoreError;
use super::store::Store;

/// Runs that match at least one of some bounds, or all runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Visible {
    /// None: all runs.
    bounds: Option<Vec<Bound>>,
}

/// One run, runs with all of these labels, or both conditions together. Without either: all runs.
type Bound = (Option<Uuid>, Option<Map<String, Value>>);

/// The condition for a table `r` of runs. Bind [`Visible::parameter`] to the parameter of this
/// number.
pub(super) fn condition(parameter: usize) -> String {
    format!(
        "(${parameter}::jsonb IS NULL OR EXISTS (
            SELECT 1 FROM jsonb_to_recordset(${parameter}) AS b (run uuid, labels jsonb)
             WHERE (b.run IS NULL OR b.run = r.id) AND (b.labels IS NULL OR r.labels @> b.labels)))"
    )
}

impl Visible {
    /// Runs that match any of these bounds.
    pub fn within(bounds: impl Iterator<Item = Bound>) -> Self {
        let bounds: Vec<Bound> = bounds.collect();
        let all = bounds
            .iter()
            .any(|(run, labels)| run.is_none() && labels.is_none());
        Self {
            bounds: (!all).then_some(bounds),
        }
    }

    /// True if the run is visible. Its labels are compared only where a bound names labels.
    pub fn admits(&self, run: Uuid, labels: &Map<String, Value>) -> bool {
        let Some(bounds) = &self.bounds else {
            return true;
        };
        let within = |(only, required): &Bound| {
            only.is_none_or(|only| only == run)
                && required
                    .iter()
                    .flatten()
                    .all(|(name, value)| labels.get(name) == Some(value))
        };
        bounds.iter().any(within)
    }

    /// True if visibility depends on the labels of runs.
    pub fn needs_labels(&self) -> bool {
        let bounds = self.bounds.iter().flatten();
        bounds.into_iter().any(|(_, labels)| labels.is_some())
    }

    /// The bounds as text: the same text shows the same runs.
    pub fn to_key(&self) -> String {
        self.parameter()
            .map_or_else(String::new, |bounds| bounds.to_string())
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
    /// The labels of a run, if it exists. They never change.
    pub async fn run_labels(&self, run: Uuid) -> Result<Option<Map<String, Value>>, StoreError> {
        let labels: Option<sqlx::types::Json<Map<String, Value>>> =
            sqlx::query_scalar("SELECT labels FROM runs WHERE id = $1")
                .bind(run)
                .fetch_optional(&self.pool)
                .await?;
        Ok(labels.map(|labels| labels.0))
    }
}
