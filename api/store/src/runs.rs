//! Runs and their variations: create, read, list.

use chrono::{DateTime, Utc};
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;
use serde_json::json;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::error::StoreError;
use super::holds::Hold;
use super::store::{Store, signed, unsigned};
use super::visibility::{self, Visible};

/// A run, as the API returns it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Run {
    /// Its id, a UUIDv7.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Free labels.
    #[schema(value_type = HashMap<String, String>)]
    pub labels: serde_json::Value,
    /// Its status, derived from its variations.
    pub status: String,
    /// Its parallel attempts.
    pub variations: Vec<Variation>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its first variation started.
    pub started_at: Option<DateTime<Utc>>,
    /// When its last variation ended. All events that were published before are then stored.
    pub ended_at: Option<DateTime<Utc>>,
    /// True if the run is over, and its stored events match the counts of its producers.
    pub sealed: bool,
    /// When its events were archived. Readers read them from the archive since then; later events
    /// are not archived.
    pub archived_at: Option<DateTime<Utc>>,
    /// Why neither retention nor a request may delete it; absent for most runs.
    pub hold: Option<Hold>,
    /// True if something that it printed was, or is being, masked after it was stored.
    pub redacted: bool,
    /// Stored events.
    pub events: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// The watermark: id of the last stored event.
    #[schema(value_type = String)]
    pub last_id: EventId,
}

/// One attempt of a run.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Variation {
    /// Its number, from 0.
    pub index: u16,
    /// Its status.
    pub status: String,
    /// Exit code of its process.
    pub exit_code: Option<i32>,
    /// Signal that ended its process.
    pub signal: Option<i32>,
    /// Reason, in words.
    pub message: Option<String>,
    /// Events that its producer counted and that are not stored; absent until it has ended.
    pub missing: Option<u64>,
}

/// A run to create.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its name.
    pub name: String,
    /// How many attempts it has.
    pub variations: u16,
    /// Free labels.
    pub labels: serde_json::Map<String, serde_json::Value>,
    /// The user or token that creates it. Idempotency keys are unique per creator.
    pub created_by: Actor,
    /// A second creation with the same key returns the first run.
    pub idempotency_key: Option<String>,
}

const RUN_COLUMNS: &str =
    "r.id, r.name, r.labels, r.status, r.created_at, r.started_at, r.ended_at,
    r.sealed_at IS NOT NULL AS sealed, r.archived_at, r.hold_reason, r.held_by, r.held_at,
    r.redaction_revision > 0 AS redacted, r.events, r.bytes, r.epoch, r.seq,
    (SELECT jsonb_agg(jsonb_build_object('index', v.variation, 'status', v.status,
            'exit_code', v.exit_code, 'signal', v.signal, 'message', v.message,
            'missing', v.missing) ORDER BY v.variation)
       FROM variations v WHERE v.run_id = r.id) AS attempts";

impl Run {
    fn from_row(row: &PgRow) -> Result<Self, StoreError> {
        let attempts: Option<serde_json::Value> = row.try_get("attempts")?;
        let reason: Option<String> = row.try_get("hold_reason")?;
        let (by, at): (Option<String>, Option<_>) =
            (row.try_get("held_by")?, row.try_get("held_at")?);
        let hold = reason.zip(by).zip(at);
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            labels: row.try_get("labels")?,
            status: row.try_get("status")?,
            variations: Variation::list(attempts)?,
            created_at: row.try_get("created_at")?,
            started_at: row.try_get("started_at")?,
            ended_at: row.try_get("ended_at")?,
            sealed: row.try_get("sealed")?,
            archived_at: row.try_get("archived_at")?,
            hold: hold.map(|((reason, by), at)| Hold { reason, by, at }),
            redacted: row.try_get("redacted")?,
            events: unsigned(row.try_get("events")?),
            bytes: unsigned(row.try_get("bytes")?),
            last_id: EventId::new(
                unsigned(row.try_get("epoch")?),
                unsigned(row.try_get("seq")?),
            ),
        })
    }
}

impl Variation {
    fn list(attempts: Option<serde_json::Value>) -> Result<Vec<Self>, StoreError> {
        #[derive(serde::Deserialize)]
        struct RunAttempt {
            index: u16,
            status: String,
            exit_code: Option<i32>,
            signal: Option<i32>,
            message: Option<String>,
            missing: Option<u64>,
        }
        let Some(attempts) = attempts else {
            return Ok(Vec::new());
        };
        let attempts: Vec<RunAttempt> = serde_json::from_value(attempts)
            .map_err(|error| StoreError::Unexpected(error.to_string()))?;
        let variation = |attempt: RunAttempt| Self {
            index: attempt.index,
            status: attempt.status,
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            message: attempt.message,
            missing: attempt.missing,
        };
        Ok(attempts.into_iter().map(variation).collect())
    }
}

/// Which runs to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only runs that are older than this one.
    pub before: Option<Uuid>,
    /// Only runs with this status.
    pub status: Option<String>,
    /// Only runs with all of these labels.
    pub labels: serde_json::Map<String, serde_json::Value>,
    /// Only runs that the caller may see.
    pub visible: Visible,
    /// How many at most.
    pub limit: u16,
}

impl Store {
    /// Creates a run with all its variations, or finds the run that was created with the same
    /// idempotency key. Returns whether it is new.
    pub async fn create_run(&self, new: &NewRun) -> Result<(Run, bool), StoreError> {
        let created_by = new.created_by.id.map_or_else(
            || new.created_by.name.clone(),
            |creator| creator.to_string(),
        );
        let mut transaction = self.pool.begin().await?;
        let inserted: Option<Uuid> = sqlx::query_scalar(
            "INSERT INTO runs (id, name, labels, variations, created_by, idempotency_key)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT ON CONSTRAINT runs_idempotency DO NOTHING RETURNING id",
        )
        .bind(Uuid::now_v7())
        .bind(&new.name)
        .bind(serde_json::Value::Object(new.labels.clone()))
        .bind(i16::try_from(new.variations).unwrap_or(i16::MAX))
        .bind(&created_by)
        .bind(&new.idempotency_key)
        .fetch_optional(&mut *transaction)
        .await?;
        let id = match inserted {
            Some(id) => {
                sqlx::query(
                    "INSERT INTO variations (run_id, variation)
                     SELECT $1, number FROM generate_series(0, $2 - 1) AS number",
                )
                .bind(id)
                .bind(i32::from(new.variations))
                .execute(&mut *transaction)
                .await?;
                let (target, details) = (id.to_string(), json!({"variations": new.variations}));
                let actor = &new.created_by;
                audit::record(&mut transaction, actor, "run.created", &target, details).await?;
                id
            }
            None => {
                sqlx::query_scalar(
                    "SELECT id FROM runs WHERE created_by = $1 AND idempotency_key = $2",
                )
                .bind(&created_by)
                .bind(&new.idempotency_key)
                .fetch_one(&mut *transaction)
                .await?
            }
        };
        transaction.commit().await?;
        let run = self.run(id).await?.ok_or_else(|| {
            StoreError::Unexpected(format!("run {id} vanished right after its creation"))
        })?;
        Ok((run, inserted.is_some()))
    }

    /// One run, if it exists.
    pub async fn run(&self, id: Uuid) -> Result<Option<Run>, StoreError> {
        let query = format!("SELECT {RUN_COLUMNS} FROM runs r WHERE r.id = $1");
        let row = sqlx::query(&query)
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(Run::from_row).transpose()
    }

    /// Runs, newest first.
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>, StoreError> {
        let query = format!(
            "SELECT {RUN_COLUMNS} FROM runs r
              WHERE ($1::uuid IS NULL OR r.id < $1)
                AND ($2::text IS NULL OR r.status = $2)
                AND {visible}
                AND ($4::jsonb IS NULL OR r.labels @> $4)
              ORDER BY r.id DESC LIMIT $5",
            visible = visibility::condition(3)
        );
        let rows = sqlx::query(&query)
            .bind(filter.before)
            .bind(&filter.status)
            .bind(filter.visible.parameter())
            .bind(
                (!filter.labels.is_empty()).then(|| serde_json::Value::from(filter.labels.clone())),
            )
            .bind(i64::from(filter.limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(Run::from_row).collect()
    }

    /// Runs with all of these labels, newest first, each with whether it is open.
    pub async fn labelled_runs(
        &self,
        labels: &serde_json::Map<String, serde_json::Value>,
        visible: &Visible,
        limit: u16,
    ) -> Result<Vec<(Uuid, bool)>, StoreError> {
        let query = format!(
            "SELECT r.id, r.ended_at IS NULL FROM runs r
              WHERE r.labels @> $1 AND {visible} ORDER BY r.id DESC LIMIT $3",
            visible = visibility::condition(2)
        );
        let runs = sqlx::query_as(&query)
            .bind(serde_json::Value::from(labels.clone()))
            .bind(visible.parameter())
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(runs)
    }

    /// What a reader must know of a run before it reads: the watermark, and whether the run is
    /// over.
    pub async fn coverage(&self, id: Uuid) -> Result<Option<Coverage>, StoreError> {
        let row: Option<(i64, i64, bool, i64, i64, i32)> = sqlx::query_as(
            "SELECT epoch, seq, ended_at IS NOT NULL, archived_epoch, archived_seq, redaction_revision
               FROM runs WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        let at = |epoch, seq| EventId::new(unsigned(epoch), unsigned(seq));
        Ok(row.map(
            |(epoch, seq, ended, archived_epoch, archived_seq, redaction_revision)| Coverage {
                watermark: at(epoch, seq),
                ended,
                archived: at(archived_epoch, archived_seq),
                redaction_revision,
            },
        ))
    }
}

/// How far Postgres holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// Id of the last stored event.
    pub watermark: EventId,
    /// True if every variation has reported its end.
    pub ended: bool,
    /// The archive held the run up to and including this event.
    pub archived: EventId,
    /// Changes with each redaction of the run: then its events are not what they were.
    pub redaction_revision: i32,
}

impl Coverage {
    /// The watermark in the form that Postgres compares.
    pub(super) fn pair(&self) -> (i64, i64) {
        (signed(self.watermark.epoch), signed(self.watermark.seq))
    }
}
