//! The outbox of access changes, whose copies in Redis must be deleted. Triggers fill it within the
//! transaction of the change, no matter which program makes the change.
//!
//! Gateways lock the oldest rows in the order of their ids while they delete the copies. If several
//! gateways do so, each waits for the previous one and then finds no rows left. A row is deleted
//! only after its copies are deleted.

use crate::from_row::from_row;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::error::StoreError;
use super::outage::ACQUIRE_DEADLINE;
use super::store::Store;

/// Changes that are claimed at a time.
const CLAIM_ROWS: i64 = 500;

/// The channel on which Postgres notifies gateways of new changes.
const CHANNEL: &str = "access_changes";

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangedSubject {
    /// A token was revoked, or its permissions changed.
    Token,
    /// A session ended.
    Session,
    /// A user was disabled or enabled, or their permissions changed.
    User,
}

/// One change, as it is published to all gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessChange {
    /// What changed.
    pub kind: ChangedSubject,
    /// Id of the token, session or user.
    pub id: Uuid,
    /// Key of the copy in Redis, for a token or a session.
    #[serde(skip)]
    pub hash: Option<[u8; 32]>,
}

#[derive(Debug)]
struct OutboxRow {
    id: i64,
    kind: String,
    subject: Uuid,
    hash: Option<Vec<u8>>,
}

from_row!(OutboxRow {
    id,
    kind,
    subject,
    hash
});

/// Changes that no other gateway can claim at the same time.
#[derive(Debug)]
pub struct ClaimedChanges {
    transaction: Transaction<'static, Postgres>,
    rows: Vec<i64>,
    /// The changes.
    pub changes: Vec<AccessChange>,
}

impl ClaimedChanges {
    /// Deletes the changes, after their copies were deleted. If this fails, they are claimed again
    /// later.
    pub async fn done(mut self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM access_changes WHERE id = ANY($1)")
            .bind(&self.rows)
            .execute(&mut *self.transaction)
            .await?;
        self.transaction.commit().await?;
        Ok(())
    }

    /// True if there may be more.
    pub fn is_full(&self) -> bool {
        i64::try_from(self.rows.len()).is_ok_and(|rows| rows >= CLAIM_ROWS)
    }
}

impl Store {
    /// Claims the oldest changes. Waits while another gateway holds them.
    pub async fn take_access_changes(&self) -> Result<ClaimedChanges, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let rows: Vec<OutboxRow> = sqlx::query_as(
            "SELECT id, kind, subject, hash FROM access_changes ORDER BY id LIMIT $1 FOR UPDATE",
        )
        .bind(CLAIM_ROWS)
        .fetch_all(&mut *transaction)
        .await?;
        let change = |row: &OutboxRow| {
            let kind = match row.kind.as_str() {
                "token" => ChangedSubject::Token,
                "session" => ChangedSubject::Session,
                _ => ChangedSubject::User,
            };
            AccessChange {
                kind,
                id: row.subject,
                hash: row.hash.as_deref().and_then(|hash| hash.try_into().ok()),
            }
        };
        Ok(ClaimedChanges {
            changes: rows.iter().map(change).collect(),
            rows: rows.iter().map(|row| row.id).collect(),
            transaction,
        })
    }

    /// Opens a connection of its own, not from the pool, on which Postgres notifies of new changes.
    pub async fn access_change_listener(&self) -> Result<PgListener, StoreError> {
        let options = self.pool.connect_options();
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(ACQUIRE_DEADLINE)
            .connect_lazy_with((*options).clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}
