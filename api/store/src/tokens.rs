//! Tokens of programs and people: only their SHA-256 is stored.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::store::{Store, StoreError};

/// What a valid token stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The token's own id, for sessions and the log.
    pub id: Uuid,
    /// Whom it was made for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// The only run that it may touch, if it is bound to one.
    pub run_id: Option<Uuid>,
    /// Only runs with all of these labels.
    pub labels: Option<Map<String, Value>>,
    /// The user who has made it, and whose rights bound it.
    pub user_id: Option<Uuid>,
    /// Milliseconds until it ends, when it was read: no clock but that of Postgres decides.
    #[serde(skip)]
    pub left_ms: Option<i64>,
}

from_row!(TokenRow {
    id,
    name,
    scopes,
    run_id,
    labels: nullable_json,
    user_id,
    left_ms
});

/// By whom a token is made.
#[derive(Debug, Clone, Copy)]
pub enum Minted<'a> {
    /// Somebody who wants a token.
    By(&'a Actor),
    /// Somebody who wants a run: it belongs to that, and is in no list of tokens.
    WithRun(&'a Actor),
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
    /// Only runs with all of these labels.
    pub labels: Option<&'a Map<String, Value>>,
    /// The user who makes it.
    pub user_id: Option<Uuid>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A token as it is shown.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// Whom it was made for.
    pub name: String,
    /// What it may do, at most.
    pub scopes: Vec<String>,
    /// The only run that it may touch.
    pub run_id: Option<Uuid>,
    /// Only runs with all of these labels.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub labels: Option<Map<String, Value>>,
    /// The user who has made it.
    pub user_id: Option<Uuid>,
    /// The name of whoever has made it, at that time.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was ended.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was used last, to some seconds.
    pub last_used_at: Option<DateTime<Utc>>,
    /// How often it was used.
    pub uses: i64,
}

from_row!(Token {
    id,
    name,
    scopes,
    run_id,
    labels: nullable_json,
    user_id,
    created_by,
    created_at,
    expires_at,
    revoked_at,
    last_used_at,
    uses
});

/// How often a token was used since this was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// How often.
    pub count: i64,
    /// When last.
    pub last: DateTime<Utc>,
}

impl Store {
    /// Stores a new token and answers its id.
    pub async fn create_token(
        &self,
        minted: Minted<'_>,
        token: &NewToken<'_>,
    ) -> Result<Uuid, StoreError> {
        let id = Uuid::now_v7();
        let (actor, created_by) = match minted {
            Minted::By(actor) => (actor, Some(&actor.name)),
            Minted::WithRun(actor) => (actor, None),
        };
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO tokens (id, hash, name, scopes, run_id, labels, user_id, expires_at, created_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(id)
        .bind(token.hash.as_slice())
        .bind(token.name)
        .bind(token.scopes)
        .bind(token.run_id)
        .bind(token.labels.map(Json))
        .bind(token.user_id)
        .bind(token.expires_at)
        .bind(created_by)
        .execute(&mut *transaction)
        .await?;
        let details = json!({
            "name": token.name, "scopes": token.scopes, "run": token.run_id, "labels": token.labels,
            "expires_at": token.expires_at,
        });
        audit::note(
            &mut transaction,
            actor,
            "token.created",
            &id.to_string(),
            details,
        )
        .await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// The token with this hash, if it is neither expired nor revoked.
    pub async fn token(&self, hash: [u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let row = sqlx::query_as(
            "SELECT id, name, scopes, run_id, labels, user_id,
                    (extract(epoch FROM expires_at - now()) * 1000)::bigint AS left_ms FROM tokens
              WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
        )
        .bind(hash.as_slice())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row)
    }

    /// Tokens, newest first: of a user, or all but those that were minted with runs.
    pub async fn tokens(
        &self,
        of: Option<Uuid>,
        before: Option<Uuid>,
        limit: u16,
    ) -> Result<Vec<Token>, StoreError> {
        let tokens = sqlx::query_as(
            "SELECT id, name, scopes, run_id, labels, user_id, created_by, created_at, expires_at, revoked_at,
                    last_used_at, uses FROM tokens
              WHERE ($1::uuid IS NULL AND (run_id IS NULL OR created_by IS NOT NULL) OR user_id = $1)
                AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        )
        .bind(of)
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(tokens)
    }

    /// Ends a token: any, or one of this user. False if there is none that has not ended.
    pub async fn revoke_token(
        &self,
        actor: &Actor,
        id: Uuid,
        of: Option<Uuid>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let name: Option<String> = sqlx::query_scalar(
            "UPDATE tokens SET revoked_at = now()
              WHERE id = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR user_id = $2) RETURNING name",
        )
        .bind(id)
        .bind(of)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(name) = name else {
            return Ok(false);
        };
        let details = json!({"name": name});
        audit::note(
            &mut transaction,
            actor,
            "token.revoked",
            &id.to_string(),
            details,
        )
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Adds up how often tokens were used. Rows are locked in one order, so that gateways do not block each other.
    pub async fn count_token_uses(&self, uses: &[(Uuid, Uses)]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = uses.iter().map(|(id, _)| *id).collect();
        let counts: Vec<i64> = uses.iter().map(|(_, uses)| uses.count).collect();
        let lasts: Vec<DateTime<Utc>> = uses.iter().map(|(_, uses)| uses.last).collect();
        sqlx::query(
            "WITH used AS (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS u (id, count, last)),
                  locked AS MATERIALIZED (SELECT id FROM tokens WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE)
             UPDATE tokens t SET uses = t.uses + u.count, last_used_at = greatest(t.last_used_at, u.last)
               FROM used u JOIN locked USING (id) WHERE t.id = u.id",
        )
        .bind(ids)
        .bind(counts)
        .bind(lasts)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
