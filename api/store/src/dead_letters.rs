//! What stood in run streams and was no event: to be listed, looked at, read again, and dropped.

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::copy_rows::{COPY_EVENTS, CopyRows, EventRow};
use super::store::{Store, StoreError, signed, unsigned};

/// A dead letter, without its bytes.
#[derive(Debug, Clone)]
pub struct DeadLetterRow {
    /// Its number.
    pub id: i64,
    /// The run in whose stream it stood.
    pub run_id: Uuid,
    epoch: i64,
    seq: i64,
    /// What was wrong with it.
    pub reason: String,
    /// How many bytes it has.
    pub bytes: i32,
    /// When it was put aside.
    pub created_at: DateTime<Utc>,
    /// Who published it, if that is known.
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
    /// Where it stood.
    pub fn place(&self) -> EventId {
        EventId::new(unsigned(self.epoch), unsigned(self.seq))
    }

    /// Its number at its producer, if that is known.
    pub fn producer_seq(&self) -> Option<u64> {
        self.producer_seq.map(unsigned)
    }
}

/// What became of a letter that was read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It is stored as so many events, and gone from the dead letters.
    Stored(usize),
    /// There is no such letter any more.
    Gone,
    /// Its run is gone.
    NoRun,
    /// This place, one of its own, holds an event.
    Taken(EventId),
    /// An event of the same producer and number is stored elsewhere: it was published again.
    Known(EventId),
}

const LETTER: &str =
    "SELECT id, run_id, epoch, seq, reason, octet_length(body) AS bytes, created_at, producer,
        producer_seq FROM dead_letters";

impl Store {
    /// The newest dead letters, of one run or of all, newest first.
    pub async fn dead_letters(
        &self,
        run: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<DeadLetterRow>, StoreError> {
        let statement =
            format!("{LETTER} WHERE $1::uuid IS NULL OR run_id = $1 ORDER BY id DESC LIMIT $2");
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
        let letter = sqlx::query_as(&format!("{LETTER} WHERE id = $1"))
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

    /// Drops a dead letter; false if there is none of this number.
    pub async fn drop_dead_letter(&self, id: i64) -> Result<bool, StoreError> {
        let dropped = sqlx::query("DELETE FROM dead_letters WHERE id = $1")
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(dropped.rows_affected() > 0)
    }

    /// Stores what a dead letter turned out to be: these events, in ascending order of their ids, in the
    /// place that a `gap` was left in, and drops the letter. All of it or nothing.
    ///
    /// The seals of the run are as they were: they were judged without these events.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub async fn replay_dead_letter(
        &self,
        letter: &DeadLetterRow,
        rows: &[EventRow<'_>],
    ) -> Result<Replayed, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let outcome = replay(&mut transaction, letter, rows).await?;
        if matches!(outcome, Replayed::Stored(_)) {
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
    let run = sqlx::query("SELECT 1 FROM runs WHERE id = $1 FOR UPDATE")
        .bind(letter.run_id)
        .fetch_optional(&mut *transaction)
        .await?;
    if run.is_none() {
        return Ok(Replayed::NoRun);
    }
    let dropped = sqlx::query("DELETE FROM dead_letters WHERE id = $1")
        .bind(letter.id)
        .execute(&mut *transaction)
        .await?;
    if dropped.rows_affected() == 0 {
        return Ok(Replayed::Gone);
    }
    let seqs: Vec<i64> = rows.iter().map(|row| signed(row.id.seq)).collect();
    // The notes that were left in its place.
    let notes: Vec<i32> = sqlx::query_scalar(
        "DELETE FROM events WHERE run_id = $1 AND epoch = $2 AND seq = ANY($3) AND kind = $4
            AND producer = $5 RETURNING octet_length(body)",
    )
    .bind(letter.run_id)
    .bind(letter.epoch)
    .bind(&seqs)
    .bind(Kind::Gap.number())
    .bind(Uuid::nil())
    .fetch_all(&mut *transaction)
    .await?;
    let taken: Option<(i64, i64)> = sqlx::query_as(
        "SELECT epoch, seq FROM events WHERE run_id = $1 AND epoch = $2 AND seq = ANY($3) LIMIT 1",
    )
    .bind(letter.run_id)
    .bind(letter.epoch)
    .bind(&seqs)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some((epoch, seq)) = taken {
        return Ok(Replayed::Taken(EventId::new(
            unsigned(epoch),
            unsigned(seq),
        )));
    }
    let known: Option<(i64, i64)> = sqlx::query_as(
        "SELECT e.epoch, e.seq FROM events e
           JOIN unnest($2::uuid[], $3::bigint[]) AS n(producer, seq)
             ON e.producer = n.producer AND e.producer_seq = n.seq
          WHERE e.run_id = $1 AND n.producer <> $4 LIMIT 1",
    )
    .bind(letter.run_id)
    .bind(rows.iter().map(|row| row.producer).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|row| signed(row.producer_seq))
            .collect::<Vec<_>>(),
    )
    .bind(Uuid::nil())
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some((epoch, seq)) = known {
        return Ok(Replayed::Known(EventId::new(
            unsigned(epoch),
            unsigned(seq),
        )));
    }
    let mut copy_rows = CopyRows::default();
    rows.iter().for_each(|row| copy_rows.push(row));
    let mut copy = transaction.copy_in_raw(COPY_EVENTS).await?;
    copy.send(copy_rows.finish()).await?;
    copy.finish().await?;
    let bytes: usize = rows.iter().map(|row| row.body.len()).sum();
    let noted: i64 = notes.iter().copied().map(i64::from).sum();
    sqlx::query("UPDATE runs SET events = events + $2, bytes = bytes + $3 WHERE id = $1")
        .bind(letter.run_id)
        .bind(signed(rows.len() as u64) - signed(notes.len() as u64))
        .bind(signed(bytes as u64) - noted)
        .execute(transaction)
        .await?;
    Ok(Replayed::Stored(rows.len()))
}
