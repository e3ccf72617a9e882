//! The objects in the archive that hold events of runs, from before they are written until after
//! they are deleted.
//!
//! Every object has a row in `archives` before it is written, and until it is certain that it is
//! deleted. So a process that dies in between leaves no object without a row:
//!
//! ```text
//! begin -> writing --keep--> kept --retention--> leaving -> object deleted -> row deleted
//!             \--- another attempt begins ----------^
//! ```
//!
//! [`Store::keep_archive`] is the one moment at which events pass from rows to an object. It holds
//! the lock of the run's row, and commits only if the run has not changed since it was read, and
//! only for the newest attempt. From then on, rows at or below the archived id of the run may be
//! deleted. A statement that reads rows therefore also compares them with this id
//! ([`super::events`]).

use std::time::Duration;

use chrono::{DateTime, NaiveDate};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::seal::{Checksum, Seal};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::error::StoreError;
use super::store::{Store, signed, unsigned};

/// Longest time in which an attempt may still write its object, with a large margin. An object of
/// an older attempt may appear after it was deleted, so its row is kept for this time.
const ATTEMPT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// An attempt to archive the events that a run has got since it was last archived.
#[derive(Debug, Clone)]
pub struct ArchiveAttempt {
    /// Id of the object.
    pub id: Uuid,
    /// The run.
    pub run: Uuid,
    /// The object holds the events after this one ...
    pub after: EventId,
    /// ... up to and including this one.
    pub upto: EventId,
    /// How many events that must be, by the run's own count ...
    pub events: u64,
    /// ... and how many bytes of lines.
    pub line_bytes: u64,
    /// What is stored of each producer, from the run's beginning on.
    pub producers: Vec<(Uuid, Seal)>,
    /// Index of the previous object of the run, if there is one.
    pub before: Option<Vec<u8>>,
    /// The run was redacted: its lines are as many and as long as its producers published, and
    /// others.
    pub is_redacted: bool,
}

/// Sizes of a written object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenArchive {
    /// Its events.
    pub events: u64,
    /// Bytes of their lines.
    pub line_bytes: u64,
    /// Its uncompressed bytes.
    pub raw_bytes: u64,
    /// Its compressed bytes.
    pub stored_bytes: u64,
}

/// An object that holds a part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveObject {
    /// Id of the object.
    pub id: Uuid,
    /// The run.
    pub run: Uuid,
    /// It holds the events after this one ...
    pub after: EventId,
    /// ... up to and including this one.
    pub upto: EventId,
}

/// An object that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Id of the object.
    pub id: Uuid,
    /// Its run, which may be deleted already.
    pub run: Uuid,
    /// Id of the multipart upload that was started for it.
    pub upload: Option<String>,
}

/// Locks a run that is due for archiving and reads its state. It is due if it has been sealed for
/// long enough, has events that are not archived, no dead letter, which could still be replayed
/// into it, and no redaction that is being carried out.
const LOCK_DUE: &str =
    "SELECT r.epoch, r.seq, r.archived_epoch, r.archived_seq, r.events, r.bytes, r.redaction_revision
       FROM runs r
      WHERE r.id = $1 AND r.sealed_at < now() - make_interval(secs => $2)
        AND r.sealed_at IS DISTINCT FROM r.archived_seal
        AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.run_id = r.id)
        AND NOT EXISTS (SELECT FROM redactions d WHERE d.run_id = r.id AND d.finished_at IS NULL)
        FOR UPDATE";

impl Store {
    /// Runs that have been sealed for this long and are not archived as they are, in the order in
    /// which they were sealed.
    pub async fn runs_to_archive(
        &self,
        age: Duration,
        limit: u32,
    ) -> Result<Vec<Uuid>, StoreError> {
        let runs = sqlx::query_scalar(
            "SELECT id FROM runs r
              WHERE sealed_at < now() - make_interval(secs => $1)
                AND sealed_at IS DISTINCT FROM archived_seal
                AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.run_id = r.id)
                AND NOT EXISTS (SELECT FROM redactions d WHERE d.run_id = r.id AND d.finished_at IS NULL)
              ORDER BY sealed_at LIMIT $2",
        )
        .bind(age.as_secs_f64())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(runs)
    }

    /// Begins an attempt to archive a run, and abandons every earlier attempt. Returns none if
    /// there is nothing to archive.
    pub async fn begin_archive(
        &self,
        run: Uuid,
        age: Duration,
    ) -> Result<Option<ArchiveAttempt>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let Some(row) = sqlx::query(LOCK_DUE)
            .bind(run)
            .bind(age.as_secs_f64())
            .fetch_optional(&mut *transaction)
            .await?
        else {
            return Ok(None);
        };
        // The lock keeps other attempts from starting. An earlier one must not win any more.
        sqlx::query(
            "UPDATE archives SET state = 'leaving' WHERE run_id = $1 AND state = 'writing'",
        )
        .bind(run)
        .execute(&mut *transaction)
        .await?;
        let (upto, after) = (
            id(&row, "epoch", "seq")?,
            id(&row, "archived_epoch", "archived_seq")?,
        );
        // The counts of the run, less what is archived, are what the new object must hold.
        let kept: (i64, i64) = sqlx::query_as(
            "SELECT coalesce(sum(events), 0)::bigint, coalesce(sum(line_bytes), 0)::bigint
               FROM archives WHERE run_id = $1 AND state = 'kept'",
        )
        .bind(run)
        .fetch_one(&mut *transaction)
        .await?;
        let before: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT index FROM archives WHERE run_id = $1 AND state = 'kept' ORDER BY epoch DESC, seq DESC LIMIT 1",
        )
        .bind(run)
        .fetch_optional(&mut *transaction)
        .await?
        .flatten();
        // The row of the object comes before the object.
        let attempt = ArchiveAttempt {
            id: Uuid::now_v7(),
            run,
            after,
            upto,
            events: unsigned(row.try_get::<i64, _>("events")? - kept.0),
            line_bytes: unsigned(row.try_get::<i64, _>("bytes")? - kept.1),
            producers: producers(&mut transaction, run).await?,
            before,
            is_redacted: row.try_get::<i32, _>("redaction_revision")? > 0,
        };
        sqlx::query(
            "INSERT INTO archives (id, run_id, state, after_epoch, after_seq, epoch, seq)
             VALUES ($1, $2, 'writing', $3, $4, $5, $6)",
        )
        .bind(attempt.id)
        .bind(run)
        .bind(signed(after.epoch))
        .bind(signed(after.seq))
        .bind(signed(upto.epoch))
        .bind(signed(upto.seq))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Some(attempt))
    }

    /// Records the id of a multipart upload, before the first part is sent. Returns false if the
    /// attempt was abandoned.
    pub async fn note_upload(&self, attempt: Uuid, upload: &str) -> Result<bool, StoreError> {
        let updated =
            sqlx::query("UPDATE archives SET upload = $2 WHERE id = $1 AND state = 'writing'")
                .bind(attempt)
                .bind(upload)
                .execute(&self.pool)
                .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Records that the object of an attempt is complete. Returns false if the attempt was
    /// abandoned.
    pub async fn note_written(&self, attempt: Uuid) -> Result<bool, StoreError> {
        let updated = sqlx::query(
            "UPDATE archives SET written_at = clock_timestamp() WHERE id = $1 AND state = 'writing'",
        )
        .bind(attempt)
        .execute(&self.pool)
        .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Passes a run to the archive: from now on readers read the object, which was compared with
    /// the rows. The same transaction queues the job that deletes the rows, for `rows_after` from
    /// now. Returns false, and does nothing, if the run has changed or the attempt was abandoned.
    pub async fn keep_archive(
        &self,
        attempt: &ArchiveAttempt,
        written: &WrittenArchive,
        index: &[u8],
        rows_after: Duration,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let run = sqlx::query(
            "UPDATE runs SET archived_epoch = epoch, archived_seq = seq, archived_at = clock_timestamp(),
                    archived_seal = sealed_at
              WHERE id = $1 AND (epoch, seq) = ($2, $3) AND (archived_epoch, archived_seq) = ($4, $5)
                AND sealed_at IS DISTINCT FROM archived_seal AND sealed_at IS NOT NULL
                AND events = $6 + (SELECT coalesce(sum(a.events), 0) FROM archives a
                                    WHERE a.run_id = $1 AND a.state = 'kept')
                AND bytes = $7 + (SELECT coalesce(sum(a.line_bytes), 0) FROM archives a
                                   WHERE a.run_id = $1 AND a.state = 'kept')",
        )
        .bind(attempt.run)
        .bind(signed(attempt.upto.epoch))
        .bind(signed(attempt.upto.seq))
        .bind(signed(attempt.after.epoch))
        .bind(signed(attempt.after.seq))
        .bind(signed(written.events))
        .bind(signed(written.line_bytes))
        .execute(&mut *transaction)
        .await?;
        let kept = sqlx::query(
            "UPDATE archives SET state = 'kept', kept_at = clock_timestamp(), upload = NULL, index = $2,
                    events = $3, line_bytes = $4, raw_bytes = $5, stored_bytes = $6
              WHERE id = $1 AND state = 'writing'",
        )
        .bind(attempt.id)
        .bind(index)
        .bind(signed(written.events))
        .bind(signed(written.line_bytes))
        .bind(signed(written.raw_bytes))
        .bind(signed(written.stored_bytes))
        .execute(&mut *transaction)
        .await?;
        if run.rows_affected() != 1 || kept.rows_affected() != 1 {
            transaction.rollback().await?;
            return Ok(false);
        }
        super::job_queue::schedule_drop_rows(&mut transaction, day_of(attempt.run), rows_after)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The object that holds the events after this one, if there is one.
    pub async fn object_after(
        &self,
        run: Uuid,
        id: EventId,
    ) -> Result<Option<ArchiveObject>, StoreError> {
        self.object(
            "SELECT id, run_id, after_epoch, after_seq, epoch, seq FROM archives
              WHERE run_id = $1 AND state = 'kept' AND (epoch, seq) > ($2, $3) ORDER BY epoch, seq LIMIT 1",
            run,
            id,
        )
        .await
    }

    /// The object that holds the events before this one, if there is one.
    pub async fn object_before(
        &self,
        run: Uuid,
        id: EventId,
    ) -> Result<Option<ArchiveObject>, StoreError> {
        // `after` of an object is exclusive, so the comparison needs the id before.
        let id = EventId::new(id.epoch, id.seq.saturating_sub(1));
        self.object(
            "SELECT id, run_id, after_epoch, after_seq, epoch, seq FROM archives
              WHERE run_id = $1 AND state = 'kept' AND (after_epoch, after_seq) < ($2, $3)
              ORDER BY epoch DESC, seq DESC LIMIT 1",
            run,
            id,
        )
        .await
    }

    async fn object(
        &self,
        query: &'static str,
        run: Uuid,
        at: EventId,
    ) -> Result<Option<ArchiveObject>, StoreError> {
        let row = sqlx::query(query)
            .bind(run)
            .bind(signed(at.epoch))
            .bind(signed(at.seq))
            .fetch_optional(&self.pool)
            .await?;
        let object = |row: PgRow| {
            Ok(ArchiveObject {
                id: row.try_get("id")?,
                run: row.try_get("run_id")?,
                after: id(&row, "after_epoch", "after_seq")?,
                upto: id(&row, "epoch", "seq")?,
            })
        };
        row.map(object).transpose()
    }

    /// Index of an object, as JSON, if the object still holds a part of a run.
    pub async fn archive_index(&self, object: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let index: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT index FROM archives WHERE id = $1 AND state = 'kept'")
                .bind(object)
                .fetch_optional(&self.pool)
                .await?;
        Ok(index.flatten())
    }

    /// Up to which event the archive holds a run; zero for a run that does not exist.
    pub async fn archived_upto(&self, run: Uuid) -> Result<EventId, StoreError> {
        let archived: Option<(i64, i64)> =
            sqlx::query_as("SELECT archived_epoch, archived_seq FROM runs WHERE id = $1")
                .bind(run)
                .fetch_optional(&self.pool)
                .await?;
        Ok(archived.map_or(EventId::ZERO, |(epoch, seq)| {
            EventId::new(unsigned(epoch), unsigned(seq))
        }))
    }

    /// True if the archive holds any run.
    pub async fn has_archives(&self) -> Result<bool, StoreError> {
        let exists =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM archives WHERE state = 'kept')")
                .fetch_one(&self.pool)
                .await?;
        Ok(exists)
    }

    /// Abandons attempts of all runs that are older than any that can still be in progress.
    pub async fn give_up_attempts(&self, age: Duration) -> Result<u64, StoreError> {
        let abandoned = sqlx::query(
            "UPDATE archives SET state = 'leaving'
              WHERE state = 'writing' AND begun_at < now() - make_interval(secs => $1)",
        )
        .bind(age.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(abandoned.rows_affected())
    }

    /// Objects that are to be deleted, of one run or of all, in the order of their ids.
    pub async fn leaving_objects(
        &self,
        of: Option<Uuid>,
        after: Uuid,
        limit: u32,
    ) -> Result<Vec<Leaving>, StoreError> {
        let rows: Vec<(Uuid, Uuid, Option<String>)> = sqlx::query_as(
            "SELECT id, run_id, upload FROM archives
              WHERE state = 'leaving' AND id > $1 AND ($3::uuid IS NULL OR run_id = $3) ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .bind(of)
        .fetch_all(&self.pool)
        .await?;
        let leaving = |(id, run, upload)| Leaving { id, run, upload };
        Ok(rows.into_iter().map(leaving).collect())
    }

    /// Deletes the row of a deleted object, unless its attempt may still be writing it: then the
    /// object is deleted once more later. Returns whether the row was deleted.
    pub async fn forget_object(&self, object: Uuid) -> Result<bool, StoreError> {
        let deleted = sqlx::query(
            "DELETE FROM archives WHERE id = $1 AND state = 'leaving'
                AND (kept_at IS NOT NULL OR begun_at < now() - make_interval(secs => $2))",
        )
        .bind(object)
        .bind(ATTEMPT_LIFE.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected() == 1)
    }
}

/// The day, in UTC, in whose partition the events of a run are stored.
pub fn day_of(run: Uuid) -> NaiveDate {
    let created = run.get_timestamp().map_or(0, |time| time.to_unix().0);
    let created = i64::try_from(created).ok();
    let created = created.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    created.unwrap_or_default().date_naive()
}

async fn producers(
    connection: &mut PgConnection,
    run: Uuid,
) -> Result<Vec<(Uuid, Seal)>, StoreError> {
    let rows: Vec<(Uuid, i64, i64, i64)> =
        sqlx::query_as("SELECT producer, events, bytes, checksum FROM producers WHERE run_id = $1 ORDER BY producer")
            .bind(run)
            .fetch_all(connection)
            .await?;
    let seal = |(producer, events, bytes, checksum): (Uuid, i64, i64, i64)| {
        let checksum = u32::try_from(checksum)
            .map_err(|error| StoreError::Unexpected(format!("checksum of {producer}: {error}")))?;
        let seal = Seal {
            events: unsigned(events),
            bytes: unsigned(bytes),
            checksum: Checksum(checksum),
        };
        Ok((producer, seal))
    };
    rows.into_iter().map(seal).collect()
}

fn id(row: &PgRow, epoch: &str, seq: &str) -> Result<EventId, StoreError> {
    Ok(EventId::new(
        unsigned(row.try_get(epoch)?),
        unsigned(row.try_get(seq)?),
    ))
}
