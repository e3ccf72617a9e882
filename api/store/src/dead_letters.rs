//! Dead letters: content of run streams that was no event. Operators list, read, replay and drop
//! them.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use serde_json::json;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::audit::{self, Actor};
use super::copy_rows::{COPY_EVENTS, CopyRows, EventRow};
use super::error::StoreError;
use super::store::{Store, signed, unsigned};

/// A dead letter, without its bytes.
#[derive(Debug, Clone)]
pub struct DeadLetterRow {
    /// Its number.
    pub id: i64,
    /// The run in whose stream it was found.
    pub run_id: Uuid,
    epoch: i64,
    seq: i64,
    /// What was wrong with it.
    pub reason: String,
    /// How many bytes it has.
    pub bytes: i32,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// The producer that published it, if that is known.
    pub producer: Option<Uuid>,
    producer_seq: Option<i64>,
}

from_row!(DeadLetterRow {
    id,
    run_id,
    epoch,
    seq,
    reason,
    bytes,
    created_at,
    producer,
    producer_seq
});

impl DeadLetterRow {
    /// The id that it had in the stream.
    pub fn place(&self) -> EventId {
        EventId::new(unsigned(self.epoch), unsigned(self.seq))
    }

    /// Its seq at its producer, if that is known.
    pub fn producer_seq(&self) -> Option<u64> {
        self.producer_seq.map(unsigned)
    }
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It is stored as this many events, and removed from the dead letters.
    Stored(usize),
    /// The dead letter does not exist any more.
    Gone,
    /// Its run does not exist any more.
    NoRun,
    /// This id, which the letter needs, holds another event.
    Taken(EventId),
    /// An event of the same producer and seq is stored under this id: it was published again.
    Known(EventId),
}

const SELECT_LETTER: &str =
    "SELECT id, run_id, epoch, seq, reason, octet_length(body) AS bytes, created_at, producer,
        producer_seq FROM dead_letters";

impl Store {
    /// The newest dead letters of one run or of all, newest first.
    pub async fn dead_letters(
        &self,
        run: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<DeadLetterRow>, StoreError> {
        let statement = format!(
            "{SELECT_LETTER} WHERE $1::uuid IS NULL OR run_id = $1 ORDER BY id DESC LIMIT $2"
        );
        let letters = sqlx::query_as(&statement)
            .bind(run)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(letters)
    }

    /// One dead letter and its bytes.
    pub async fn dead_letter(
        &self,
        id: i64,
    ) -> Result<Option<(DeadLetterRow, Vec<u8>)>, StoreError> {
        let letter = sqlx::query_as(&format!("{SELECT_LETTER} WHERE id = $1"))
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(letter) = letter else {
            return Ok(None);
        };
        let body = sqlx::query_scalar("SELECT body FROM dead_letters WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(body.map(|body| (letter, body)))
    }

    /// Deletes a dead letter. Returns false if it does not exist.
    pub async fn drop_dead_letter(&self, actor: &Actor, id: i64) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let run: Option<Uuid> =
            sqlx::query_scalar("DELETE FROM dead_letters WHERE id = $1 RETURNING run_id")
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(run) = run else {
            return Ok(false);
        };
        let (target, details) = (id.to_string(), json!({"run": run}));
        let action = "dead_letter.dropped";
        audit::record(&mut transaction, actor, action, &target, details).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Stores the events that a dead letter contains, in ascending order of their ids, in place of
    /// its `gap`, and deletes the letter: all of it or nothing.
    ///
    /// The seals of the run do not change, because they were compared without these events.
    pub async fn replay_dead_letter(
        &self,
        actor: &Actor,
        letter: &DeadLetterRow,
        rows: &[EventRow<'_>],
    ) -> Result<Replayed, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let outcome = replay(&mut transaction, letter, rows).await?;
        if let Replayed::Stored(events) = outcome {
            let details = json!({"run": letter.run_id, "events": events});
            let (target, action) = (letter.id.to_string(), "dead_letter.replayed");
            audit::record(&mut transaction, actor, action, &target, details).await?;
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        Ok(outcome)
    }
}

async fn replay(
    transaction: &mut PgConnection,
    letter: &DeadLetterRow,
    rows: &[EventRow<'_>],
) -> Result<Replayed, StoreError> {
    // Lock the run, then delete the letter, so that a letter is replayed once.
    let run = sqlx::query("SELECT 1 FROM runs WHERE id = $1 FOR UPDATE")
        .bind(letter.run_id)
        .fetch_optional(&mut *transaction)
        .await?;
    if run.is_none() {
        return Ok(Replayed::NoRun);
    }
    let deleted = sqlx::query("DELETE FROM dead_letters WHERE id = $1")
        .bind(letter.id)
        .execute(&mut *transaction)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(Replayed::Gone);
    }
    // The events take the ids of the gaps that were stored in their place.
    let gaps = delete_gaps(transaction, letter, rows).await?;
    if let Some(id) = id_in_use(transaction, letter, rows).await? {
        return Ok(Replayed::Taken(id));
    }
    if let Some(id) = duplicate(transaction, letter, rows).await? {
        return Ok(Replayed::Known(id));
    }
    // Store the events, and correct the counts of the run.
    let mut copy_rows = CopyRows::default();
    rows.iter().for_each(|row| copy_rows.push(row));
    let mut copy = transaction.copy_in_raw(COPY_EVENTS).await?;
    copy.send(copy_rows.finish()).await?;
    copy.finish().await?;
    let bytes: usize = rows.iter().map(|row| row.body.len()).sum();
    let gap_bytes: i64 = gaps.iter().copied().map(i64::from).sum();
    sqlx::query("UPDATE runs SET events = events + $2, bytes = bytes + $3 WHERE id = $1")
        .bind(letter.run_id)
        .bind(signed(rows.len() as u64) - signed(gaps.len() as u64))
        .bind(signed(bytes as u64) - gap_bytes)
        .execute(transaction)
        .await?;
    Ok(Replayed::Stored(rows.len()))
}

/// Deletes the gaps with the ids of these rows. Returns their bytes.
async fn delete_gaps(
    connection: &mut PgConnection,
    letter: &DeadLetterRow,
    rows: &[EventRow<'_>],
) -> Result<Vec<i32>, StoreError> {
    let gaps = sqlx::query_scalar(
        "DELETE FROM events WHERE run_id = $1 AND epoch = $2 AND seq = ANY($3) AND kind = $4
            AND producer = $5 RETURNING octet_length(body)",
    )
    .bind(letter.run_id)
    .bind(letter.epoch)
    .bind(seqs(rows))
    .bind(Kind::Gap.number())
    .bind(Uuid::nil())
    .fetch_all(connection)
    .await?;
    Ok(gaps)
}

/// An id of these rows that another event has.
async fn id_in_use(
    connection: &mut PgConnection,
    letter: &DeadLetterRow,
    rows: &[EventRow<'_>],
) -> Result<Option<EventId>, StoreError> {
    let in_use: Option<(i64, i64)> = sqlx::query_as(
        "SELECT epoch, seq FROM events WHERE run_id = $1 AND epoch = $2 AND seq = ANY($3) LIMIT 1",
    )
    .bind(letter.run_id)
    .bind(letter.epoch)
    .bind(seqs(rows))
    .fetch_optional(connection)
    .await?;
    Ok(in_use.map(|(epoch, seq)| EventId::new(unsigned(epoch), unsigned(seq))))
}

/// A stored event with the producer and seq of one of these rows.
async fn duplicate(
    connection: &mut PgConnection,
    letter: &DeadLetterRow,
    rows: &[EventRow<'_>],
) -> Result<Option<EventId>, StoreError> {
    let producers: Vec<Uuid> = rows.iter().map(|row| row.producer).collect();
    let producer_seqs: Vec<i64> = rows.iter().map(|row| signed(row.producer_seq)).collect();
    let stored: Option<(i64, i64)> = sqlx::query_as(
        "SELECT e.epoch, e.seq FROM events e
           JOIN unnest($2::uuid[], $3::bigint[]) AS n(producer, seq)
             ON e.producer = n.producer AND e.producer_seq = n.seq
          WHERE e.run_id = $1 AND n.producer <> $4 LIMIT 1",
    )
    .bind(letter.run_id)
    .bind(producers)
    .bind(producer_seqs)
    .bind(Uuid::nil())
    .fetch_optional(connection)
    .await?;
    Ok(stored.map(|(epoch, seq)| EventId::new(unsigned(epoch), unsigned(seq))))
}

fn seqs(rows: &[EventRow<'_>]) -> Vec<i64> {
    rows.iter().map(|row| signed(row.id.seq)).collect()
}
