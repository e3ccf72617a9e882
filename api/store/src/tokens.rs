//! Access tokens of programs and people. Only their SHA-256 is stored.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::store::Store;

/// A valid token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The token's own id, for sessions and the audit log.
    pub id: Uuid,
    /// Its name, which says who it was issued for.
    pub name: String,
    /// Its permissions.
    pub scopes: Vec<String>,
    /// The only run that it may access, if it is bound to one.
    pub run_id: Option<Uuid>,
    /// Only runs with all of these labels.
    pub labels: Option<Map<String, Value>>,
    /// The user who issued it, and whose permissions bound it.
    pub user_id: Option<Uuid>,
    /// Milliseconds until it expires, at the time of the read. Only the clock of Postgres decides.
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

/// On whose request a token is issued.
#[derive(Debug, Clone, Copy)]
pub enum Minted<'a> {
    /// The actor requested a token.
    By(&'a Actor),
    /// The actor created a run. The token belongs to the run, and is in no list of tokens.
    WithRun(&'a Actor),
}

/// A token to store.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// Its name, which says who it is issued for.
    pub name: &'a str,
    /// Its permissions.
    pub scopes: &'a [String],
    /// The only run that it may access.
    pub run_id: Option<Uuid>,
    /// Only runs with all of these labels.
    pub labels: Option<&'a Map<String, Value>>,
    /// The user who issues it.
    pub user_id: Option<Uuid>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A token, as lists return it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// Its name, which says who it was issued for.
    pub name: String,
    /// Its permissions, at most.
    pub scopes: Vec<String>,
    /// The only run that it may access.
    pub run_id: Option<Uuid>,
    /// Only runs with all of these labels.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub labels: Option<Map<String, Value>>,
    /// The user who issued it.
    pub user_id: Option<Uuid>,
    /// Name of the actor who issued it, at that time.
    pub created_by: Option<String>,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to some seconds.
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

/// Uses of a token since they were last added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// How often.
    pub count: i64,
    /// When last.
    pub last: DateTime<Utc>,
}

impl Store {
    /// Stores a new token and returns its id.
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
        audit::record(
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

    /// Tokens, newest first: of a user, or all but those that were issued with runs.
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

    /// Revokes a token: any, or one of this user. Returns false if there is none that is not
    /// revoked.
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
        audit::record(
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

    /// Adds up how often tokens were used. It locks rows in the order of their ids, so that
    /// gateways do not deadlock.
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
