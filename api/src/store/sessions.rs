//! Sessions of browsers: a session stands for the token that it was signed in with, and dies with it.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::tokens::TokenRow;
use super::{Store, StoreError};

impl Store {
    /// Stores a session for a token.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not do it.
    pub async fn create_session(
        &self,
        hash: [u8; 32],
        token: Uuid,
        life: Duration,
    ) -> Result<(), StoreError> {
        let life = PgInterval::try_from(life)
            .map_err(|error| StoreError::Unexpected(error.to_string()))?;
        sqlx::query(
            "INSERT INTO sessions (hash, token_id, expires_at) VALUES ($1, $2, now() + $3)",
        )
        .bind(hash.as_slice())
        .bind(token)
        .bind(life)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The token behind a session, if both are still valid.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not be asked.
    pub async fn session(&self, hash: [u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let row = sqlx::query_as(
            "SELECT t.id, t.name, t.scopes, t.run_id
               FROM sessions s JOIN tokens t ON t.id = s.token_id
              WHERE s.hash = $1 AND s.expires_at > now()
                AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())",
        )
        .bind(hash.as_slice())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row)
    }

    /// Ends a session; ending one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not do it.
    pub async fn end_session(&self, hash: [u8; 32]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE hash = $1")
            .bind(hash.as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets sessions that have expired, and says how many there were.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not do it.
    pub async fn forget_expired_sessions(&self) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM sessions WHERE expires_at < now()")
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}
