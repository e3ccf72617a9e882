//! Access tokens of programs and people. Only their SHA-256 is stored.
//!
//! Tokens that are issued for a run ([`run_tokens`](super::run_tokens)) have a parent. They are
//! listed by their run only.

use std::time::Duration;

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
    /// The user whose permissions bound it: the one who issued it, or the parent of a token of a
    /// run.
    pub user_id: Option<Uuid>,
    /// Whether it was issued with its run. A copy that lacks this is of a version that knew no
    /// parents: it is not used.
    pub of_run: bool,
    /// The parent token of a token of a run, as the hexadecimal SHA-256.
    pub parent: Option<String>,
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
    of_run,
    parent,
    left_ms
});

/// How long the tokens of a run live on after the run was sealed, or after their parent last asked
/// for them if that was later. A late event may reopen the run, and they go on then.
pub const SEAL_GRACE: Duration = Duration::from_secs(15 * 60);

/// When a token `t` ends by itself, of the run `r`; NULL if never. `least` and `greatest` ignore
/// NULL.
pub(super) fn token_end() -> String {
    format!(
        "least(t.expires_at, CASE WHEN t.renewed_at IS NOT NULL AND r.sealed_at IS NOT NULL
                THEN greatest(r.sealed_at, t.renewed_at) + interval '{} s' END)",
        SEAL_GRACE.as_secs()
    )
}

/// Whether a token `t` was issued with its run.
const OF_RUN: &str = "(t.run_id IS NOT NULL AND t.created_by IS NULL)";

/// Whether a token `t` is managed by the user `$1` or the token `$2`; by all if both are NULL.
const MANAGED: &str =
    "($1::uuid IS NULL AND $2::uuid IS NULL OR t.user_id = $1 OR t.id = $2 OR t.parent_id = $2
        OR (SELECT p.user_id FROM tokens p WHERE p.id = t.parent_id) = $1)";

/// The caller who lists or revokes tokens, and by that the tokens it manages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// An administrator: all tokens.
    Admin,
    /// A user: their tokens, and the tokens of runs that come from them or their tokens.
    User(Uuid),
    /// A token: itself, and the tokens of runs that come from it.
    Token(Uuid),
}

impl Manager {
    const fn parameters(self) -> (Option<Uuid>, Option<Uuid>) {
        match self {
            Self::Admin => (None, None),
            Self::User(id) => (Some(id), None),
            Self::Token(id) => (None, Some(id)),
        }
    }
}

/// Which tokens to list, newest first.
#[derive(Debug, Clone, Copy)]
pub struct TokenFilter {
    /// Who lists them.
    pub manager: Manager,
    /// Only those for this run alone; without it only those that were not issued with a run.
    pub run: Option<Uuid>,
    /// Only tokens that are older than this one.
    pub before: Option<Uuid>,
    /// How many at most.
    pub limit: u16,
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
    /// The user who issued it, or whose request for a run did.
    pub user_id: Option<Uuid>,
    /// The token that it comes from, if it is a token of a run. It ends with that token, and may
    /// never do more.
    pub parent: Option<Uuid>,
    /// Name of the actor who issued it, at that time; absent for a token that was issued with its
    /// run.
    pub created_by: Option<String>,
    /// When it was issued.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Whether it is valid: neither expired nor revoked, and neither its user nor the token that it
    /// comes from has ended, nor its run.
    pub active: bool,
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
    parent,
    created_by,
    created_at,
    expires_at,
    revoked_at,
    active,
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
        actor: &Actor,
        token: &NewToken<'_>,
    ) -> Result<Uuid, StoreError> {
        let id = Uuid::now_v7();
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
        .bind(&actor.name)
        .execute(&mut *transaction)
        .await?;
        let details = json!({
            "name": token.name, "scopes": token.scopes, "run": token.run_id, "labels": token.labels,
            "expires_at": token.expires_at,
        });
        let target = id.to_string();
        audit::record(&mut transaction, actor, "token.created", &target, details).await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// The token with this hash, if it is neither expired nor revoked, nor ended with its run.
    /// Whether its parent has ended is for the caller to find out.
    pub async fn token(&self, hash: [u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let end = token_end();
        let query = format!(
            "SELECT t.id, t.name, t.scopes, t.run_id, t.labels, t.user_id, {OF_RUN} AS of_run,
                    (SELECT encode(p.hash, 'hex') FROM tokens p WHERE p.id = t.parent_id) AS parent,
                    (extract(epoch FROM {end} - now()) * 1000)::bigint AS left_ms
               FROM tokens t LEFT JOIN runs r ON r.id = t.run_id
              WHERE t.hash = $1 AND t.revoked_at IS NULL AND coalesce({end} > now(), true)"
        );
        let row = sqlx::query_as(&query).bind(hash.as_slice());
        Ok(row.fetch_optional(&self.pool).await?)
    }

    /// Lists tokens.
    pub async fn tokens(&self, filter: &TokenFilter) -> Result<Vec<Token>, StoreError> {
        let (user, token) = filter.manager.parameters();
        let which = match filter.run {
            Some(_) => "t.run_id = $3".to_owned(),
            None => format!("$3::uuid IS NULL AND NOT {OF_RUN}"),
        };
        let end = token_end();
        let query = format!(
            "SELECT t.id, t.name, t.scopes, t.run_id, t.labels, t.user_id, t.parent_id AS parent, t.created_by,
                    t.created_at, t.expires_at, t.revoked_at, t.last_used_at, t.uses,
                    t.revoked_at IS NULL AND coalesce({end} > now(), true) AND u.disabled_at IS NULL
                    AND NOT EXISTS (SELECT FROM tokens p LEFT JOIN users o ON o.id = p.user_id
                         WHERE p.id = t.parent_id
                           AND (p.revoked_at IS NOT NULL OR p.expires_at <= now() OR o.disabled_at IS NOT NULL))
                    AS active
               FROM tokens t LEFT JOIN users u ON u.id = t.user_id LEFT JOIN runs r ON r.id = t.run_id
              WHERE {MANAGED} AND {which} AND ($4::uuid IS NULL OR t.id < $4)
              ORDER BY t.id DESC LIMIT $5"
        );
        let tokens = sqlx::query_as(&query)
            .bind(user)
            .bind(token)
            .bind(filter.run)
            .bind(filter.before)
            .bind(i64::from(filter.limit));
        Ok(tokens.fetch_all(&self.pool).await?)
    }

    /// Revokes a token. Returns false if the manager has none with this id that is not revoked.
    pub async fn revoke_token(
        &self,
        actor: &Actor,
        id: Uuid,
        manager: Manager,
    ) -> Result<bool, StoreError> {
        let (user, token) = manager.parameters();
        let mut transaction = self.pool.begin().await?;
        let query = format!(
            "UPDATE tokens t SET revoked_at = now()
              WHERE t.id = $3 AND t.revoked_at IS NULL AND {MANAGED} RETURNING t.name"
        );
        let name: Option<String> = sqlx::query_scalar(&query)
            .bind(user)
            .bind(token)
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(name) = name else {
            return Ok(false);
        };
        let (target, details) = (id.to_string(), json!({"name": name}));
        audit::record(&mut transaction, actor, "token.revoked", &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Revokes all tokens of a manager that are for this run alone, and returns how many. It locks
    /// rows in the order of their ids, as all do that write several.
    pub async fn revoke_tokens_of_run(
        &self,
        actor: &Actor,
        run: Uuid,
        manager: Manager,
    ) -> Result<u64, StoreError> {
        let (user, token) = manager.parameters();
        let mut transaction = self.pool.begin().await?;
        let query = format!(
            "WITH locked AS MATERIALIZED (
                 SELECT t.id FROM tokens t WHERE t.run_id = $3 AND t.revoked_at IS NULL AND {MANAGED}
                  ORDER BY t.id FOR NO KEY UPDATE)
             UPDATE tokens t SET revoked_at = now() FROM locked WHERE t.id = locked.id AND t.revoked_at IS NULL"
        );
        let done = sqlx::query(&query)
            .bind(user)
            .bind(token)
            .bind(run)
            .execute(&mut *transaction)
            .await?;
        let revoked = done.rows_affected();
        if revoked > 0 {
            let (target, details) = (run.to_string(), json!({"run": run, "revoked": revoked}));
            audit::record(&mut transaction, actor, "token.revoked", &target, details).await?;
        }
        transaction.commit().await?;
        Ok(revoked)
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
