//! Tokens of programs and people: only their SHA-256 is stored.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};

/// What a valid token stands for.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TokenRow {
    /// The token's own id, for sessions and the log.
    pub id: Uuid,
    /// Whom it was made for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The only run that it may touch, if it is bound to one.
    pub run_id: Option<Uuid>,
}

/// A token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// Whom it is made for.
    pub name: &'a str,
    /// What it may do.
    pub scopes: &'a [String],
    /// The only run that it may touch.
    pub run_id: Option<Uuid>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Stores a new token and answers its id.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not do it.
    pub async fn create_token(&self, token: &NewToken<'_>) -> Result<Uuid, StoreError> {
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO tokens (id, hash, name, scopes, run_id, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(token.hash.as_slice())
        .bind(token.name)
        .bind(token.scopes)
        .bind(token.run_id)
        .bind(token.expires_at)
        .execute(&self.pool)
        .await?;
        Ok(id)
    }

    /// The token with this hash, if it is neither expired nor revoked.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not be asked.
    pub async fn token(&self, hash: [u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let row = sqlx::query_as(
            "SELECT id, name, scopes, run_id FROM tokens
              WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
        )
        .bind(hash.as_slice())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row)
    }
}
