//! Redactions: events that are masked after they were stored, on request.
//!
//! [`Store::request_redaction`] records the request and queues the job [`REDACT_RUN`], in one
//! transaction. The job masks rows and archived objects, and then forgets the text that was looked
//! for ([`Store::finish_redaction`]). As long as a run has a redaction that is not finished, it is
//! not archived: an object must not be made of rows that are being masked.
//!
//! A mask is as long as what it replaces, so that ids, seqs, counts and bytes stay what they were.
//! Seals are compared when events are stored, and so stay true as well.
//!
//! Bounds: [`MAX_UNFINISHED_REDACTIONS`] requests of a run at a time, [`MAX_LISTED_REDACTIONS`] in
//! a list.

use chrono::{DateTime, Utc};
use runcast_common::presence::run_update::RunUpdate;
use runcast_common::protocol::event_id::EventId;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::archives::{ArchiveObject, WrittenArchive};
use super::audit::{self, Actor};
use super::error::StoreError;
use super::from_row::from_row;
use super::holds::Hold;
use super::job_queue;
use super::run_updates::run_updates;
use super::store::{Store, signed, unsigned};

/// The job that carries out the redactions of a run.
pub const REDACT_RUN: &str = "redact_run";

/// Redactions of one run that may wait at a time.
const MAX_UNFINISHED_REDACTIONS: i64 = 16;

/// The newest redactions of a run, which are listed.
const MAX_LISTED_REDACTIONS: i64 = 200;

/// What to redact in a run.
#[derive(Debug, Clone, Copy)]
pub struct RedactionRequest<'a> {
    /// The first event ...
    pub from: EventId,
    /// ... and the last one.
    pub to: EventId,
    /// A text within these events; all that they say, if none.
    pub text: Option<&'a [u8]>,
    /// Why, for the audit log and the list.
    pub reason: Option<&'a str>,
}

/// A redaction, as the API returns it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Redaction {
    /// Its id.
    pub id: Uuid,
    /// `text` if a text was masked wherever it occurs, `events` if all of these events was.
    pub what: String,
    /// Id of the first event that was looked at ...
    pub from: String,
    /// ... and of the last one.
    pub to: String,
    /// The reason that was given.
    pub reason: Option<String>,
    /// The user or token that requested it, by its name at that time.
    pub requested_by: String,
    /// When it was requested.
    pub requested_at: DateTime<Utc>,
    /// Events that it has changed so far.
    pub events: i64,
    /// When it was finished; absent while it is carried out.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it was given up; absent for most.
    pub failure: Option<String>,
}

from_row!(Redaction {
    id,
    what,
    from,
    to,
    reason,
    requested_by,
    requested_at,
    events,
    finished_at,
    failure
});

/// What became of a request to redact.
#[derive(Debug, Clone)]
pub enum RedactionOutcome {
    /// It is recorded, and will be carried out.
    Requested(Redaction),
    /// The run is on hold, and nothing was done.
    Held(Hold),
    /// Too many redactions of the run wait already.
    TooMany,
    /// There is no such run.
    Unknown,
}

/// A redaction that is to be carried out.
#[derive(Clone)]
pub struct PendingRedaction {
    /// Its id.
    pub id: Uuid,
    /// The first event ...
    pub from: EventId,
    /// ... and the last one.
    pub to: EventId,
    /// The text; all that the events say, if none.
    pub text: Option<Vec<u8>>,
}

impl std::fmt::Debug for PendingRedaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingRedaction")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Where Postgres holds a text of a run beside its events.
struct Copies {
    is_json: bool,
    /// The keys of the rows of a run, $1.
    keys: &'static str,
    /// The bytes of the row with the key $1.
    read: &'static str,
    /// Replaces them by $2.
    replace: &'static str,
}

const COPIES: [Copies; 4] = [
    Copies {
        is_json: false,
        keys: "SELECT id::text FROM dead_letters WHERE run_id = $1",
        read: "SELECT body FROM dead_letters WHERE id = $1::bigint",
        replace: "UPDATE dead_letters SET body = $2 WHERE id = $1::bigint",
    },
    Copies {
        is_json: true,
        keys: "SELECT id::text FROM webhook_deliveries WHERE run_id = $1",
        read: "SELECT convert_to(body, 'UTF8') FROM webhook_deliveries WHERE id = $1::uuid",
        replace: "UPDATE webhook_deliveries SET body = convert_from($2, 'UTF8') WHERE id = $1::uuid",
    },
    Copies {
        is_json: false,
        keys: "SELECT run_id || '/' || variation FROM variations WHERE run_id = $1 AND message IS NOT NULL",
        read: "SELECT convert_to(message, 'UTF8') FROM variations
          WHERE run_id = split_part($1, '/', 1)::uuid AND variation = split_part($1, '/', 2)::smallint",
        replace: "UPDATE variations SET message = convert_from($2, 'UTF8')
          WHERE run_id = split_part($1, '/', 1)::uuid AND variation = split_part($1, '/', 2)::smallint",
    },
    Copies {
        is_json: false,
        keys: "SELECT id::text FROM runs WHERE id = $1",
        read: "SELECT convert_to(name, 'UTF8') FROM runs WHERE id = $1::uuid",
        replace: "UPDATE runs SET name = convert_from($2, 'UTF8') WHERE id = $1::uuid",
    },
];

const COLUMNS: &str = "id, CASE WHEN is_text THEN 'text' ELSE 'events' END AS what,
    from_epoch || '-' || from_seq AS \"from\", to_epoch || '-' || to_seq AS \"to\",
    reason, requested_by, requested_at, events, finished_at, failure";

impl Store {
    /// Records a redaction and queues its job, unless the run is on hold.
    pub async fn request_redaction(
        &self,
        actor: &Actor,
        run: Uuid,
        request: RedactionRequest<'_>,
    ) -> Result<RedactionOutcome, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // The lock keeps the archive, deletion and holds out.
        type Found = (Option<String>, Option<String>, Option<DateTime<Utc>>, i64);
        let found: Option<Found> = sqlx::query_as(
            "SELECT hold_reason, held_by, held_at,
                    (SELECT count(*) FROM redactions WHERE run_id = $1 AND finished_at IS NULL)
               FROM runs WHERE id = $1 FOR UPDATE",
        )
        .bind(run)
        .fetch_optional(&mut *transaction)
        .await?;
        match found {
            None => return Ok(RedactionOutcome::Unknown),
            Some((Some(reason), Some(by), Some(at), _)) => {
                return Ok(RedactionOutcome::Held(Hold { reason, by, at }));
            }
            Some((.., unfinished)) if unfinished >= MAX_UNFINISHED_REDACTIONS => {
                return Ok(RedactionOutcome::TooMany);
            }
            Some(_) => {}
        }
        let insert = format!(
            "INSERT INTO redactions (id, run_id, from_epoch, from_seq, to_epoch, to_seq, is_text, text, reason, requested_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING {COLUMNS}"
        );
        let redaction: Redaction = sqlx::query_as(&insert)
            .bind(Uuid::now_v7())
            .bind(run)
            .bind(signed(request.from.epoch))
            .bind(signed(request.from.seq))
            .bind(signed(request.to.epoch))
            .bind(signed(request.to.seq))
            .bind(request.text.is_some())
            .bind(request.text)
            .bind(request.reason)
            .bind(&actor.name)
            .fetch_one(&mut *transaction)
            .await?;
        for statement in [
            "UPDATE runs SET redaction_revision = redaction_revision + 1 WHERE id = $1",
            "UPDATE archives SET state = 'leaving' WHERE run_id = $1 AND state = 'writing'",
        ] {
            sqlx::query(statement)
                .bind(run)
                .execute(&mut *transaction)
                .await?;
        }
        let details = json!({
            "redaction": redaction.id, "what": redaction.what, "from": redaction.from, "to": redaction.to,
            "reason": request.reason,
        });
        let target = run.to_string();
        audit::record(&mut transaction, actor, "run.redacted", &target, details).await?;
        job_queue::schedule_run(&mut transaction, REDACT_RUN, run).await?;
        transaction.commit().await?;
        Ok(RedactionOutcome::Requested(redaction))
    }

    /// The newest redactions of a run, newest first.
    pub async fn redactions(&self, run: Uuid) -> Result<Vec<Redaction>, StoreError> {
        let query = format!(
            "SELECT {COLUMNS} FROM redactions WHERE run_id = $1 ORDER BY requested_at DESC, id DESC LIMIT $2"
        );
        let redactions = sqlx::query_as(&query).bind(run).bind(MAX_LISTED_REDACTIONS);
        Ok(redactions.fetch_all(&self.pool).await?)
    }

    /// The oldest redaction of a run that is not finished.
    pub async fn pending_redaction(
        &self,
        run: Uuid,
    ) -> Result<Option<PendingRedaction>, StoreError> {
        type Row = (Uuid, i64, i64, i64, i64, Option<Vec<u8>>);
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, from_epoch, from_seq, to_epoch, to_seq, text FROM redactions
              WHERE run_id = $1 AND finished_at IS NULL ORDER BY requested_at, id LIMIT 1",
        )
        .bind(run)
        .fetch_optional(&self.pool)
        .await?;
        let id = |epoch, seq| EventId::new(unsigned(epoch), unsigned(seq));
        Ok(row.map(
            |(redaction, from_epoch, from_seq, to_epoch, to_seq, text)| PendingRedaction {
                id: redaction,
                from: id(from_epoch, from_seq),
                to: id(to_epoch, to_seq),
                text,
            },
        ))
    }

    /// Runs with a redaction that is not finished.
    pub async fn runs_to_redact(&self, limit: u32) -> Result<Vec<Uuid>, StoreError> {
        let runs = sqlx::query_scalar(
            "SELECT DISTINCT run_id FROM redactions WHERE finished_at IS NULL LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(runs)
    }

    /// Replaces the lines of these events where their rows still exist, and counts as many of them
    /// as `counted` for the redaction. A line of another length is refused by leaving it out.
    pub async fn mask_rows(
        &self,
        run: Uuid,
        redaction: Uuid,
        lines: &[(EventId, Vec<u8>)],
        counted: u64,
    ) -> Result<(), StoreError> {
        let ids = lines.iter().map(|(id, _)| *id);
        let (epochs, seqs): (Vec<i64>, Vec<i64>) =
            ids.map(|id| (signed(id.epoch), signed(id.seq))).unzip();
        let bodies: Vec<&[u8]> = lines.iter().map(|(_, line)| &line[..]).collect();
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "UPDATE events e SET body = masked.body
               FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS masked (epoch, seq, body)
              WHERE e.run_id = $1 AND (e.epoch, e.seq) = (masked.epoch, masked.seq)
                AND octet_length(e.body) = octet_length(masked.body)",
        )
        .bind(run)
        .bind(epochs)
        .bind(seqs)
        .bind(bodies)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("UPDATE redactions SET events = events + $2 WHERE id = $1")
            .bind(redaction)
            .bind(signed(counted))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Replaces what Postgres holds of a run beside its events (dead letters, bodies of webhook
    /// deliveries, messages, the name), where `mask` returns something else. It is told whether the
    /// bytes are JSON. A row is read and replaced by itself, so memory is that of one row.
    pub async fn mask_copies(
        &self,
        run: Uuid,
        mut mask: impl FnMut(&[u8], bool) -> Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        for copies in COPIES {
            let keys: Vec<String> = sqlx::query_scalar(copies.keys)
                .bind(run)
                .fetch_all(&self.pool)
                .await?;
            for key in keys {
                let bytes: Option<Vec<u8>> = sqlx::query_scalar(copies.read)
                    .bind(&key)
                    .fetch_optional(&self.pool)
                    .await?;
                let masked = bytes.and_then(|bytes| mask(&bytes, copies.is_json));
                if let Some(masked) = masked {
                    let replaced = sqlx::query(copies.replace).bind(&key).bind(masked);
                    replaced.execute(&self.pool).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes the dead letters of these events: nothing in them can be told apart.
    pub async fn remove_dead_letters(
        &self,
        run: Uuid,
        from: EventId,
        to: EventId,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM dead_letters
              WHERE run_id = $1 AND (epoch, seq) >= ($2, $3) AND (epoch, seq) <= ($4, $5)",
        )
        .bind(run)
        .bind(signed(from.epoch))
        .bind(signed(from.seq))
        .bind(signed(to.epoch))
        .bind(signed(to.seq))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Ends a redaction and forgets its text. With a failure it was given up.
    pub async fn finish_redaction(
        &self,
        redaction: Uuid,
        failure: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "WITH finished AS (UPDATE redactions SET finished_at = now(), text = NULL, failure = $2
                                WHERE id = $1 RETURNING run_id)
             UPDATE runs SET redaction_revision = redaction_revision + 1 FROM finished WHERE id = run_id",
        )
        .bind(redaction)
        .bind(failure)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What to tell viewers of a run of which events were redacted; none if it was deleted.
    pub async fn redacted_update(&self, run: Uuid) -> Result<Option<RunUpdate>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let updates = run_updates(&mut connection, vec![run], Vec::new()).await?;
        Ok(updates.into_iter().next().map(|update| RunUpdate {
            redacted: true,
            ..update
        }))
    }

    /// Records an object that will replace another one, before its first byte is written.
    pub async fn begin_replacement(&self, object: &ArchiveObject) -> Result<Uuid, StoreError> {
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO archives (id, run_id, state, after_epoch, after_seq, epoch, seq)
             VALUES ($1, $2, 'writing', $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(object.run)
        .bind(signed(object.after.epoch))
        .bind(signed(object.after.seq))
        .bind(signed(object.upto.epoch))
        .bind(signed(object.upto.seq))
        .execute(&self.pool)
        .await?;
        Ok(id)
    }

    /// Gives readers the new object in place of the old one, which is then to be deleted. Returns
    /// false, and does nothing, if either was abandoned meanwhile.
    pub async fn replace_archive(
        &self,
        old: Uuid,
        new: Uuid,
        written: &WrittenArchive,
        index: &[u8],
        redaction: Uuid,
        masked: u64,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let left =
            sqlx::query("UPDATE archives SET state = 'leaving' WHERE id = $1 AND state = 'kept'")
                .bind(old)
                .execute(&mut *transaction)
                .await?;
        let kept = sqlx::query(
            "UPDATE archives SET state = 'kept', kept_at = clock_timestamp(), upload = NULL, index = $2,
                    events = $3, line_bytes = $4, raw_bytes = $5, stored_bytes = $6,
                    written_at = clock_timestamp(),
                    rows_gone_at = (SELECT rows_gone_at FROM archives WHERE id = $7)
              WHERE id = $1 AND state = 'writing'",
        )
        .bind(new)
        .bind(index)
        .bind(signed(written.events))
        .bind(signed(written.line_bytes))
        .bind(signed(written.raw_bytes))
        .bind(signed(written.stored_bytes))
        .bind(old)
        .execute(&mut *transaction)
        .await?;
        if left.rows_affected() != 1 || kept.rows_affected() != 1 {
            transaction.rollback().await?;
            return Ok(false);
        }
        sqlx::query("UPDATE redactions SET events = events + $2 WHERE id = $1")
            .bind(redaction)
            .bind(signed(masked))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }
}
