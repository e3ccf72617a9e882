//! What the archive holds of runs, and what is on its way there or away from there.
//!
//! Every object has a row in `archives` from before it is written until it is known to be gone, so whoever
//! dies in between leaves nothing unnoticed:
//!
//! ```text
//! begin -> writing --keep--> kept --retention--> leaving -> object deleted -> row deleted
//!             \--- another attempt begins ----------^
//! ```
//!
//! [`Store::keep_archive`] is the one moment at which a run passes from rows to an object: under the lock of
//! the run's row, only if the run is as it was when it was read, and only for the attempt that nobody has
//! overtaken. Rows at or below a run's archived id may go from then on; whoever reads them does so in one
//! statement that also looks at that id ([`super::events`]).

use std::time::Duration;

use chrono::{DateTime, NaiveDate};
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::seal::{Checksum, Seal};
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::store::{Store, StoreError, signed, unsigned};

/// Oldest age of an attempt that may still be written, with much to spare: an object that such a one left may
/// appear after it was deleted, so its row stays for as long.
const ATTEMPT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// An attempt to archive what has been added to a run.
#[derive(Debug, Clone)]
pub struct ArchiveAttempt {
    /// Names the object.
    pub id: Uuid,
    /// The run.
    pub run: Uuid,
    /// Events behind this one ...
    pub after: EventId,
    /// ... up to and with this one.
    pub upto: EventId,
    /// How many there must be, by the run's own count ...
    pub events: u64,
    /// ... and how many bytes of lines.
    pub line_bytes: u64,
    /// What is stored of each producer, from the run's beginning on.
    pub producers: Vec<(Uuid, Seal)>,
    /// The index of the object before this one, if there is one.
    pub before: Option<Vec<u8>>,
}

/// What an object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenArchive {
    /// Its events.
    pub events: u64,
    /// Bytes of their lines.
    pub line_bytes: u64,
    /// Its bytes, unpacked.
    pub raw_bytes: u64,
    /// Its bytes.
    pub stored_bytes: u64,
}

/// An object that holds a part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveObject {
    /// Names it.
    pub id: Uuid,
    /// The run.
    pub run: Uuid,
    /// It holds the events behind this id ...
    pub after: EventId,
    /// ... up to and with this one.
    pub upto: EventId,
}

/// An object that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Names it.
    pub id: Uuid,
    /// Its run, which may be gone.
    pub run: Uuid,
    /// An upload in parts that was begun for it.
    pub upload: Option<String>,
}

/// The state of a run that matters to archiving, under its lock. It is due if it is sealed for so long, has
/// events that are not archived, and no dead letter that could still take its place in it.
const LOCK_DUE: &str = "SELECT r.epoch, r.seq, r.archived_epoch, r.archived_seq, r.events, r.bytes
       FROM runs r
      WHERE r.id = $1 AND r.sealed_at < now() - make_interval(secs => $2)
        AND r.sealed_at IS DISTINCT FROM r.archived_seal
        AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.run_id = r.id)
        FOR UPDATE";

impl Store {
    /// Runs that have been sealed for so long and are not archived as they are, those that wait longest first.
    pub async fn runs_to_archive(&self, age: Duration, most: u32) -> Result<Vec<Uuid>, StoreError> {
        let runs = sqlx::query_scalar(
            "SELECT id FROM runs r
              WHERE sealed_at < now() - make_interval(secs => $1)
                AND sealed_at IS DISTINCT FROM archived_seal
                AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.run_id = r.id)
              ORDER BY sealed_at LIMIT $2",
        )
        .bind(age.as_secs_f64())
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        Ok(runs)
    }

    /// Begins an attempt to archive a run, and gives up every one before it; none if there is nothing to do.
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
        let attempt = ArchiveAttempt {
            id: Uuid::now_v7(),
            run,
            after,
            upto,
            events: unsigned(row.try_get::<i64, _>("events")? - kept.0),
            line_bytes: unsigned(row.try_get::<i64, _>("bytes")? - kept.1),
            producers: producers(&mut transaction, run).await?,
            before,
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

    /// Writes down the id of an upload in parts, before the first of them is sent. False if the attempt has
    /// been given up.
    pub async fn note_upload(&self, attempt: Uuid, upload: &str) -> Result<bool, StoreError> {
        let noted =
            sqlx::query("UPDATE archives SET upload = $2 WHERE id = $1 AND state = 'writing'")
                .bind(attempt)
                .bind(upload)
                .execute(&self.pool)
                .await?;
        Ok(noted.rows_affected() == 1)
    }

    /// Writes down that the object of an attempt is whole. False if the attempt has been given up.
    pub async fn note_written(&self, attempt: Uuid) -> Result<bool, StoreError> {
        let noted = sqlx::query(
            "UPDATE archives SET written_at = clock_timestamp() WHERE id = $1 AND state = 'writing'",
        )
        .bind(attempt)
        .execute(&self.pool)
        .await?;
        Ok(noted.rows_affected() == 1)
    }

    /// Gives a run to the archive: from now on readers are given the object, which has been compared with the
    /// rows, and the rows may go: a job for that is put into the queue for `rows_after` from now, together
    /// with it. False if the run is no longer as it was, or the attempt has been given up; then nothing is done.
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
        super::job_queue::schedule_rows(&mut transaction, day_of(attempt.run), rows_after).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The object that holds what follows an event of a run, if there is one.
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

    /// The object that holds what comes before an event of a run, if there is one.
    pub async fn object_before(
        &self,
        run: Uuid,
        id: EventId,
    ) -> Result<Option<ArchiveObject>, StoreError> {
        // It begins behind an id that is not its own.
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

    /// The index of an object, as JSON, if it still holds a part of a run.
    pub async fn archive_index(&self, object: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let index: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT index FROM archives WHERE id = $1 AND state = 'kept'")
                .bind(object)
                .fetch_optional(&self.pool)
                .await?;
        Ok(index.flatten())
    }

    /// Up to where the archive holds a run; nothing for a run that does not exist.
    pub async fn archived_upto(&self, run: Uuid) -> Result<EventId, StoreError> {
        let mark: Option<(i64, i64)> =
            sqlx::query_as("SELECT archived_epoch, archived_seq FROM runs WHERE id = $1")
                .bind(run)
                .fetch_optional(&self.pool)
                .await?;
        Ok(mark.map_or(EventId::ZERO, |(epoch, seq)| {
            EventId::new(unsigned(epoch), unsigned(seq))
        }))
    }

    /// True if runs lie in the archive.
    pub async fn has_archives(&self) -> Result<bool, StoreError> {
        let there = sqlx::query_scalar("SELECT EXISTS (SELECT FROM archives WHERE state = 'kept')")
            .fetch_one(&self.pool)
            .await?;
        Ok(there)
    }

    /// Gives up attempts that nobody can be at work on any more, of whatever run.
    pub async fn give_up_attempts(&self, age: Duration) -> Result<u64, StoreError> {
        let given_up = sqlx::query(
            "UPDATE archives SET state = 'leaving'
              WHERE state = 'writing' AND begun_at < now() - make_interval(secs => $1)",
        )
        .bind(age.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(given_up.rows_affected())
    }

    /// Objects that are to be deleted, in the order of their ids.
    pub async fn leaving_objects(
        &self,
        after: Uuid,
        most: u32,
    ) -> Result<Vec<Leaving>, StoreError> {
        let rows: Vec<(Uuid, Uuid, Option<String>)> = sqlx::query_as(
            "SELECT id, run_id, upload FROM archives WHERE state = 'leaving' AND id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        let leaving = |(id, run, upload)| Leaving { id, run, upload };
        Ok(rows.into_iter().map(leaving).collect())
    }

    /// Forgets an object that has been deleted, unless somebody may still be writing it: then it is deleted
    /// again later. Says whether it was forgotten.
    pub async fn forget_object(&self, object: Uuid) -> Result<bool, StoreError> {
        let forgotten = sqlx::query(
            "DELETE FROM archives WHERE id = $1 AND state = 'leaving'
                AND (kept_at IS NOT NULL OR begun_at < now() - make_interval(secs => $2))",
        )
        .bind(object)
        .bind(ATTEMPT_LIFE.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(forgotten.rows_affected() == 1)
    }
}

/// The day, in UTC, in whose partition the events of a run lie.
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
