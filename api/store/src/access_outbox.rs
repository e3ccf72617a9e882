//! The outbox of changes that Redis holds copies of: triggers fill it in the transaction of the change, whoever makes that.
//!
//! What stands in it is locked in one order while its copies are deleted, so that of several gateways each waits for the
//! one before and finds nothing left; a row goes only once its copies have gone.

use crate::from_row::from_row;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::store::{Store, StoreError};

/// Changes that are taken at a time.
const SOME: i64 = 500;

/// The channel on which Postgres tells that there are some.
const CHANNEL: &str = "access_changes";

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangedSubject {
    /// A token was revoked, or may do other things.
    Token,
    /// A session has ended.
    Session,
    /// A user was disabled or enabled, or may do other things.
    User,
}

/// One change, as it is told to all gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessChange {
    /// Of what.
    pub kind: ChangedSubject,
    /// Which one.
    pub id: Uuid,
    /// Where the copy lies, of a token or a session.
    #[serde(skip)]
    pub hash: Option<[u8; 32]>,
}

#[derive(Debug)]
struct Row {
    id: i64,
    kind: String,
    subject: Uuid,
    hash: Option<Vec<u8>>,
}

from_row!(Row {
    id,
    kind,
    subject,
    hash
});

/// Changes that nobody else takes meanwhile.
#[derive(Debug)]
pub struct ClaimedChanges {
    transaction: Transaction<'static, Postgres>,
    rows: Vec<i64>,
    /// What they are.
    pub changes: Vec<AccessChange>,
}

impl ClaimedChanges {
    /// Deletes them: their copies are gone.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not do it; they will be taken again.
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
        i64::try_from(self.rows.len()).is_ok_and(|rows| rows >= SOME)
    }
}

impl Store {
    /// Takes what has changed, the oldest first; waits for whoever has taken it before.
    pub async fn take_access_changes(&self) -> Result<ClaimedChanges, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, kind, subject, hash FROM access_changes ORDER BY id LIMIT $1 FOR UPDATE",
        )
        .bind(SOME)
        .fetch_all(&mut *transaction)
        .await?;
        let change = |row: &Row| {
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

    /// How many changes Redis has not been told.
    pub async fn waiting_access_changes(&self) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar("SELECT count(*) FROM access_changes");
        Ok(count.fetch_one(&self.pool).await?)
    }

    /// A connection of its own on which Postgres tells that there are changes. It takes none from the pool.
    pub async fn access_change_listener(&self) -> Result<PgListener, StoreError> {
        let options = self.pool.connect_options();
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(super::store::ACQUIRE_DEADLINE)
            .connect_lazy_with((*options).clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}
