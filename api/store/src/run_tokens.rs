//! Tokens that are issued for a run. Each has a parent: the token or the user that created the run,
//! or joined it.
//!
//! A parent that asks again gets the same token again. Asking then writes nothing, unless the token
//! is about to end: so retries neither pile up rows nor fill the audit log.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::store::Store;
use super::tokens::{SEAL_GRACE, token_end};

/// Life of a token of a run after its parent has asked for it: longer than any run should take.
pub const RUN_TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A token is renewed when its parent asks for it this long after it was issued or renewed.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A token is also renewed when less than this is left of it, as in a run that is sealed.
const RENEW_BELOW: Duration = Duration::from_secs(SEAL_GRACE.as_secs() * 2 / 3);

/// The parent of a token of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// A user.
    User(Uuid),
    /// A token, by its id.
    Token(Uuid),
}

impl Parent {
    /// The values of the columns `user_id` and `parent_id`.
    const fn columns(self) -> (Option<Uuid>, Option<Uuid>) {
        match self {
            Self::User(id) => (Some(id), None),
            Self::Token(id) => (None, Some(id)),
        }
    }
}

/// A token of a run to issue, or to issue again.
#[derive(Debug, Clone)]
pub struct RunToken<'a> {
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// The run.
    pub run: Uuid,
    /// Its permissions.
    pub scopes: &'a [String],
    /// Its parent.
    pub parent: Parent,
}

/// How the issue of a token of a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunTokenIssue {
    /// It is valid. Nothing has changed that gateways hold copies of.
    Valid,
    /// It is valid for longer than before, so copies of it must be deleted.
    Renewed,
    /// It was revoked, and another text is needed.
    Revoked,
    /// The run or the parent was deleted meanwhile.
    Gone,
}

/// How long the Redis user of a token may stay after its run was sealed: agents still ask what
/// Postgres holds.
const SEALED_USER_LIFE: Duration = Duration::from_secs(15);

/// How long it may stay after the token was renewed: another attempt of a sealed run begins.
const RENEWED_USER_LIFE: Duration = Duration::from_secs(60);

impl Store {
    /// Those of these tokens whose Redis user may stay: they and their parents are valid, and their
    /// run is not over. A token is given by its run and the first bytes of its hash.
    pub async fn tokens_in_use(
        &self,
        tokens: &[(Uuid, [u8; 8])],
    ) -> Result<Vec<(Uuid, [u8; 8])>, StoreError> {
        let end = token_end();
        let query = format!(
            "SELECT g.run, g.token FROM unnest($1::uuid[], $2::bytea[]) AS g (run, token)
               JOIN tokens t ON t.run_id = g.run AND substring(t.hash FOR 8) = g.token
               JOIN runs r ON r.id = t.run_id
               LEFT JOIN tokens p ON p.id = t.parent_id
               LEFT JOIN users u ON u.id = coalesce(t.user_id, p.user_id)
              WHERE t.revoked_at IS NULL AND coalesce({end} > now(), true)
                AND p.revoked_at IS NULL AND coalesce(p.expires_at > now(), true) AND u.disabled_at IS NULL
                AND (r.sealed_at IS NULL OR r.sealed_at > now() - make_interval(secs => $3)
                     OR coalesce(t.renewed_at > now() - make_interval(secs => $4), false))"
        );
        let runs: Vec<Uuid> = tokens.iter().map(|(run, _)| *run).collect();
        let hashes: Vec<&[u8]> = tokens.iter().map(|(_, token)| token.as_slice()).collect();
        let found: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(&query)
            .bind(runs)
            .bind(hashes)
            .bind(SEALED_USER_LIFE.as_secs_f64())
            .bind(RENEWED_USER_LIFE.as_secs_f64())
            .fetch_all(&self.pool)
            .await?;
        Ok(found.into_iter().filter_map(short_token).collect())
    }

    /// These tokens, as far as they are for one run, and the tokens of runs that come from them and
    /// from these users, unless they have ended. A token is given by its run and the first bytes of
    /// its hash.
    pub async fn run_tokens_from(
        &self,
        tokens: &[Uuid],
        users: &[Uuid],
    ) -> Result<Vec<(Uuid, [u8; 8])>, StoreError> {
        let query = format!(
            "SELECT t.run_id, substring(t.hash FOR 8) FROM tokens t JOIN runs r ON r.id = t.run_id
              WHERE t.id = ANY($1)
                 OR t.renewed_at IS NOT NULL AND coalesce({} > now(), true)
                    AND (t.parent_id = ANY($1) OR t.user_id = ANY($2)
                         OR t.parent_id IN (SELECT p.id FROM tokens p WHERE p.user_id = ANY($2)))",
            token_end()
        );
        let found: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(&query)
            .bind(tokens)
            .bind(users)
            .fetch_all(&self.pool)
            .await?;
        Ok(found.into_iter().filter_map(short_token).collect())
    }

    /// How many tokens of a run that come from this parent were revoked.
    pub async fn revoked_run_tokens(&self, run: Uuid, parent: Parent) -> Result<i64, StoreError> {
        let (user, token) = parent.columns();
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM tokens WHERE run_id = $1 AND revoked_at IS NOT NULL AND renewed_at IS NOT NULL
                AND (user_id = $2 OR parent_id = $3)",
        )
        .bind(run)
        .bind(user)
        .bind(token);
        Ok(count.fetch_one(&self.pool).await?)
    }

    /// Issues a token of a run, or renews it.
    pub async fn issue_run_token(
        &self,
        actor: &Actor,
        token: &RunToken<'_>,
    ) -> Result<RunTokenIssue, StoreError> {
        let query = format!(
            "SELECT t.revoked_at IS NOT NULL,
                    {} < now() + make_interval(secs => $2) OR t.renewed_at < now() - make_interval(secs => $3)
               FROM tokens t JOIN runs r ON r.id = t.run_id WHERE t.hash = $1",
            token_end()
        );
        let known: Option<(bool, bool)> = sqlx::query_as(&query)
            .bind(token.hash.as_slice())
            .bind(RENEW_BELOW.as_secs_f64())
            .bind(RENEW_AFTER.as_secs_f64())
            .fetch_optional(&self.pool)
            .await?;
        match known {
            Some((true, _)) => Ok(RunTokenIssue::Revoked),
            Some((false, false)) => Ok(RunTokenIssue::Valid),
            Some((false, true)) => self.renew_run_token(token).await,
            None => self.insert_run_token(actor, token).await,
        }
    }

    async fn renew_run_token(&self, token: &RunToken<'_>) -> Result<RunTokenIssue, StoreError> {
        let done = sqlx::query(
            "UPDATE tokens SET renewed_at = now(), expires_at = now() + make_interval(secs => $2)
              WHERE hash = $1 AND revoked_at IS NULL",
        )
        .bind(token.hash.as_slice())
        .bind(RUN_TOKEN_LIFE.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(match done.rows_affected() {
            0 => RunTokenIssue::Revoked,
            _ => RunTokenIssue::Renewed,
        })
    }

    async fn insert_run_token(
        &self,
        actor: &Actor,
        token: &RunToken<'_>,
    ) -> Result<RunTokenIssue, StoreError> {
        let id = Uuid::now_v7();
        let name = format!("run {}", token.run);
        let (user, parent) = token.parent.columns();
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query(
            "INSERT INTO tokens (id, hash, name, scopes, run_id, user_id, parent_id, renewed_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now() + make_interval(secs => $8))
             ON CONFLICT (hash) DO NOTHING",
        )
        .bind(id)
        .bind(token.hash.as_slice())
        .bind(&name)
        .bind(token.scopes)
        .bind(token.run)
        .bind(user)
        .bind(parent)
        .bind(RUN_TOKEN_LIFE.as_secs_f64())
        .execute(&mut *transaction)
        .await;
        let done = match done {
            Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => {
                return Ok(RunTokenIssue::Gone);
            }
            done => done?,
        };
        // Otherwise another request of the same parent has just issued it.
        if done.rows_affected() > 0 {
            let details = json!({"name": name, "scopes": token.scopes, "run": token.run});
            let target = id.to_string();
            audit::record(&mut transaction, actor, "token.created", &target, details).await?;
        }
        transaction.commit().await?;
        Ok(RunTokenIssue::Valid)
    }
}

fn short_token((run, hash): (Uuid, Vec<u8>)) -> Option<(Uuid, [u8; 8])> {
    Some((run, hash.try_into().ok()?))
}
