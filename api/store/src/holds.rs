//! Legal holds: a run that is on hold is kept by retention, and cannot be deleted on request. Who
//! put it on hold or released it is in the audit log.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::store::Store;

/// Why a run is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hold {
    /// The reason that was given.
    pub reason: String,
    /// The user or token that put it on hold, by its name at that time.
    pub by: String,
    /// Since when.
    pub at: DateTime<Utc>,
}

impl Store {
    /// Puts a run on hold, or gives another reason for its hold. Returns false if there is no such
    /// run. Retention and deletion lock the run before they look at its hold, so a run that this
    /// call has found is kept.
    pub async fn hold_run(
        &self,
        actor: &Actor,
        run: Uuid,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let held = sqlx::query(
            "UPDATE runs SET hold_reason = $2, held_by = $3, held_at = now() WHERE id = $1",
        )
        .bind(run)
        .bind(reason)
        .bind(&actor.name)
        .execute(&mut *transaction)
        .await?;
        if held.rows_affected() == 0 {
            return Ok(false);
        }
        let (target, details) = (run.to_string(), json!({"reason": reason}));
        audit::record(&mut transaction, actor, "run.held", &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Ends the hold of a run, if it has one. Returns false if there is no such run.
    pub async fn release_run(&self, actor: &Actor, run: Uuid) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let reason: Option<Option<String>> =
            sqlx::query_scalar("SELECT hold_reason FROM runs WHERE id = $1 FOR UPDATE")
                .bind(run)
                .fetch_optional(&mut *transaction)
                .await?;
        let reason = match reason {
            None => return Ok(false),
            Some(None) => return Ok(true),
            Some(Some(reason)) => reason,
        };
        sqlx::query(
            "UPDATE runs SET hold_reason = NULL, held_by = NULL, held_at = NULL WHERE id = $1",
        )
        .bind(run)
        .execute(&mut *transaction)
        .await?;
        let (target, details) = (run.to_string(), json!({"reason": reason}));
        audit::record(&mut transaction, actor, "run.released", &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
