//! Sessions of browsers. A session belongs to a user, or to the token that signed in and with which
//! it ends. Only the SHA-256 of its id is stored. Each request moves its end forward, up to a limit
//! counted from the sign-in. Postgres computes all times, by its own clock.

use std::time::Duration;

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::store::Store;

/// Who a session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A user.
    User(Uuid),
    /// A token, by its id.
    Token(Uuid),
}

impl Owner {
    fn columns(self) -> (Option<Uuid>, Option<Uuid>) {
        match self {
            Self::User(id) => (Some(id), None),
            Self::Token(id) => (None, Some(id)),
        }
    }
}

/// How long sessions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lives {
    /// From the last request on.
    pub idle: Duration,
    /// From the sign-in on, whatever requests follow.
    pub most: Duration,
}

/// A session to store.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// SHA-256 of its id.
    pub hash: [u8; 32],
    /// Its owner.
    pub owner: Owner,
    /// Its client. The session replaces the previous one of this client and user.
    pub client: Option<&'a str>,
    /// What the client calls itself.
    pub user_agent: Option<&'a str>,
    /// How the owner signed in, for the audit log.
    pub by: Option<&'a str>,
    /// Further data of the session.
    pub data: &'a Map<String, Value>,
}

/// A valid session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its id in lists.
    pub id: Uuid,
    /// Its user ...
    pub user_id: Option<Uuid>,
    /// ... or its token, as the hexadecimal SHA-256.
    pub token: Option<String>,
    /// Its client.
    pub client: Option<String>,
    /// Further data of the session.
    pub data: Map<String, Value>,
    /// When it ends, unless a request follows.
    pub expires_at: DateTime<Utc>,
    /// When its end was last moved.
    pub last_seen_at: DateTime<Utc>,
    /// Milliseconds until it ends, at the time of the read.
    #[serde(skip)]
    pub left_ms: i64,
}

from_row!(SessionRow {
    id,
    user_id,
    token,
    client,
    data: json,
    expires_at,
    last_seen_at,
    left_ms
});

/// A session, as lists return it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Session {
    /// Its id, which is not the value of its cookie.
    pub id: Uuid,
    /// What the client called itself.
    pub user_agent: Option<String>,
    /// When the owner signed in.
    pub created_at: DateTime<Utc>,
    /// When its last request came, to a minute.
    pub last_seen_at: DateTime<Utc>,
    /// When it ends, unless a request follows.
    pub expires_at: DateTime<Utc>,
}

from_row!(Session {
    id,
    user_agent,
    created_at,
    last_seen_at,
    expires_at
});

const SESSION_COLUMNS: &str =
    "s.id, s.user_id, (SELECT encode(t.hash, 'hex') FROM tokens t WHERE t.id = s.token_id) AS token,
    s.client, s.data, s.expires_at, s.last_seen_at,
    (extract(epoch FROM s.expires_at - now()) * 1000)::bigint AS left_ms";

fn interval(duration: Duration) -> Result<PgInterval, StoreError> {
    let whole = Duration::from_secs(duration.as_secs());
    PgInterval::try_from(whole).map_err(|error| StoreError::Unexpected(error.to_string()))
}

impl Store {
    /// Stores a session, and records the sign-in. Returns false, and stores nothing, if the hash
    /// exists already.
    pub async fn create_session(
        &self,
        actor: &Actor,
        session: &NewSession<'_>,
        lives: Lives,
    ) -> Result<bool, StoreError> {
        let (user, token) = session.owner.columns();
        let mut transaction = self.pool.begin().await?;
        let inserted = sqlx::query_scalar::<_, Uuid>(
            "INSERT INTO sessions (hash, user_id, token_id, client, user_agent, data, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, now() + least($7, $8))
             ON CONFLICT (user_id, client) WHERE client IS NOT NULL DO UPDATE
                SET hash = excluded.hash, id = excluded.id, user_agent = excluded.user_agent, data = excluded.data,
                    created_at = now(), last_seen_at = now(), expires_at = excluded.expires_at
             RETURNING id",
        )
        .bind(session.hash.as_slice())
        .bind(user)
        .bind(token)
        .bind(session.client)
        .bind(session.user_agent)
        .bind(Json(session.data))
        .bind(interval(lives.idle)?)
        .bind(interval(lives.most)?)
        .fetch_one(&mut *transaction)
        .await;
        let id = match inserted {
            Ok(id) => id,
            Err(error)
                if error
                    .as_database_error()
                    .and_then(|error| error.constraint())
                    == Some("sessions_pkey") =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let details = json!({"session": id, "by": session.by});
        let target = user.or(token).unwrap_or_default().to_string();
        audit::record(&mut transaction, actor, "session.created", &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The session with this hash, if it has not ended.
    pub async fn session(&self, hash: [u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        let query = format!(
            "SELECT {SESSION_COLUMNS} FROM sessions s WHERE s.hash = $1 AND s.expires_at > now()"
        );
        let row = sqlx::query_as(&query).bind(hash.as_slice());
        Ok(row.fetch_optional(&self.pool).await?)
    }

    /// Moves the end of a session forward. Returns none if it has ended.
    pub async fn touch_session(
        &self,
        hash: [u8; 32],
        lives: Lives,
    ) -> Result<Option<SessionRow>, StoreError> {
        let query = format!(
            "UPDATE sessions s SET last_seen_at = now(), expires_at = least(now() + $2, created_at + $3)
              WHERE s.hash = $1 AND s.expires_at > now() RETURNING {SESSION_COLUMNS}"
        );
        let row = sqlx::query_as(&query)
            .bind(hash.as_slice())
            .bind(interval(lives.idle)?)
            .bind(interval(lives.most)?);
        Ok(row.fetch_optional(&self.pool).await?)
    }

    /// Replaces the data of a session. Returns false if it has ended.
    pub async fn keep_with_session(
        &self,
        hash: [u8; 32],
        data: &Map<String, Value>,
    ) -> Result<bool, StoreError> {
        let done =
            sqlx::query("UPDATE sessions SET data = $2 WHERE hash = $1 AND expires_at > now()")
                .bind(hash.as_slice())
                .bind(Json(data))
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends a session. It is no error if the session does not exist.
    pub async fn end_session(&self, hash: [u8; 32]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE hash = $1")
            .bind(hash.as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The sessions of a user or a token, last used first; 200 at most.
    pub async fn sessions_of(&self, owner: Owner) -> Result<Vec<Session>, StoreError> {
        let (user, token) = owner.columns();
        let sessions = sqlx::query_as(
            "SELECT id, user_agent, created_at, last_seen_at, expires_at FROM sessions
              WHERE (user_id = $1 OR token_id = $2) AND expires_at > now() ORDER BY last_seen_at DESC LIMIT 200",
        )
        .bind(user)
        .bind(token)
        .fetch_all(&self.pool)
        .await?;
        Ok(sessions)
    }

    /// Ends one session of a user or a token, or all of them. Returns how many.
    pub async fn revoke_sessions(
        &self,
        actor: &Actor,
        owner: Owner,
        only: Option<Uuid>,
    ) -> Result<u64, StoreError> {
        let (user, token) = owner.columns();
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query(
            "DELETE FROM sessions WHERE (user_id = $1 OR token_id = $2) AND ($3::uuid IS NULL OR id = $3)",
        )
        .bind(user)
        .bind(token)
        .bind(only)
        .execute(&mut *transaction)
        .await?;
        let ended = done.rows_affected();
        if ended > 0 {
            let target = user.or(token).unwrap_or_default().to_string();
            let details = json!({"ended": ended, "session": only});
            audit::record(&mut transaction, actor, "session.revoked", &target, details).await?;
        }
        transaction.commit().await?;
        Ok(ended)
    }

    /// Deletes expired sessions, and returns how many.
    pub async fn forget_expired_sessions(&self) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM sessions WHERE expires_at < now()")
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}
