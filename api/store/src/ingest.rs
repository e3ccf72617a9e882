//! The transaction that makes events durable: lock the watermarks, COPY the rows, advance the
//! watermarks.
//!
//! This transaction alone decides what is stored. Rows, watermarks, seqs of producers and statuses
//! of runs change together or not at all. Hence each event is stored exactly once, no matter which
//! process crashes or which event arrives twice.
//!
//! The transaction locks runs in the order of their ids, so that two persisters never deadlock. A
//! run that another session has locked for longer than [`LOCK_WAIT`] is left out, so that it does
//! not delay the others. The transaction has [`TRANSACTION_DEADLINE`]. A connection whose
//! transaction did not commit is closed, never reused: an interrupted COPY or transaction may have
//! left its protocol out of step.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use runcast_common::log_limit::LogLimit;
use runcast_common::presence::run_update::RunUpdate;
use runcast_common::protocol::event::Status;
use runcast_common::protocol::event_id::EventId;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, timeout_at};
use tracing::warn;
use uuid::Uuid;

use super::agents::revive_lost_agents;
use super::copy_rows::{COPY_EVENTS, CopyRows};
use super::error::StoreError;
use super::outage::Outage;
use super::run_states::{
    ProducerState, RunState, SELECT_STATES_FOR_UPDATE, SELECT_UNLOCKED_STATES_FOR_UPDATE,
    locked_states,
};
use super::run_updates::run_updates;
use super::store::{Store, signed, without_nul};

/// Longest time for one transaction. After it the connection is closed: a half-open connection
/// would otherwise block the persister for as long as the kernel waits.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait for runs that other sessions have locked; those sessions take milliseconds.
const LOCK_WAIT: &str = "300ms";

static LOCKED_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));

/// What one transaction writes.
#[derive(Debug, Default)]
pub struct IngestBatch {
    /// Event rows.
    pub rows: CopyRows,
    /// New watermarks.
    pub progress: Vec<WatermarkAdvance>,
    /// New states of producers, each with its run and its id.
    pub producers: Vec<(Uuid, Uuid, ProducerState)>,
    /// Producers of lost runs: run, producer, and when it last published, by Redis' clock.
    pub last_published: Vec<(Uuid, Uuid, u64)>,
    /// New states of variations.
    pub changes: Vec<VariationChange>,
    /// What was no event.
    pub dead_letters: Vec<DeadLetter>,
}

/// How the watermark of a run advances.
#[derive(Debug, Clone)]
pub struct WatermarkAdvance {
    /// The run.
    pub run: Uuid,
    /// Id of the last event that the batch stores.
    pub watermark: EventId,
    /// Producer of that event, and its seq there.
    pub watermark_event: (Uuid, u64),
    /// Rows of this run in the batch.
    pub events: u64,
    /// Bytes of their lines.
    pub bytes: u64,
}

/// How a batch changes the state of a variation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariationChange {
    /// The run.
    pub run: Uuid,
    /// The variation.
    pub variation: u16,
    /// Its last status in the batch.
    pub status: Status,
    /// When it started, if that is in this batch.
    pub started_ms: Option<u64>,
    /// When it ended, if its last status is final.
    pub ended_ms: Option<u64>,
    /// Exit code of its process.
    pub exit_code: Option<i32>,
    /// Signal that ended its process.
    pub signal: Option<i32>,
    /// Reason, in words.
    pub message: Option<String>,
    /// Events that its producer counted and that are not stored.
    pub missing: Option<u64>,
    /// Whether count, bytes and checksum match; absent if the producer sent none.
    pub intact: Option<bool>,
}

/// Content of a run stream that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The run.
    pub run: Uuid,
    /// The id that it has in the stream.
    pub id: EventId,
    /// Producer and seq, if it is a line of an entry that could be read.
    pub source: Option<(Uuid, u64)>,
    /// What is wrong with it.
    pub reason: String,
    /// Its bytes, unchanged.
    pub body: Vec<u8>,
}

/// What a transaction committed.
#[derive(Debug, Default)]
pub struct Ingested {
    /// Status of each written run: the final one, or none while the run goes on.
    pub ended: HashMap<Uuid, Option<String>>,
    /// What to announce: changed statuses, and agents that came back.
    pub updates: Vec<RunUpdate>,
}

impl Store {
    /// Begins a transaction and locks these runs. What to write follows from their states, so the
    /// caller builds the batch between this call and [`IngestTransaction::commit`]. Runs that other
    /// sessions keep locked are left out. The states name these producers, each with its run, and
    /// the newest others of each run.
    pub async fn begin_ingest(
        &self,
        runs: &[Uuid],
        producers: &[(Uuid, Uuid)],
    ) -> Result<IngestTransaction, StoreError> {
        match self.begin(runs, producers, SELECT_STATES_FOR_UPDATE).await {
            Err(error) if error.outage() == Some(Outage::Locked) => {
                if let Some(times) = LOCKED_LOG.admit(1) {
                    warn!(%error, times, "another session has locked runs; the others are stored");
                }
                self.begin(runs, producers, SELECT_UNLOCKED_STATES_FOR_UPDATE)
                    .await
            }
            begun => begun,
        }
    }

    async fn begin(
        &self,
        runs: &[Uuid],
        producers: &[(Uuid, Uuid)],
        query: &'static str,
    ) -> Result<IngestTransaction, StoreError> {
        let mut transaction = IngestTransaction {
            connection: self.pool.acquire().await?,
            states: HashMap::new(),
            deadline: Instant::now() + TRANSACTION_DEADLINE,
            is_committed: false,
        };
        let locked = lock(&mut transaction.connection, runs, producers, query);
        transaction.states = within(transaction.deadline, locked).await?;
        Ok(transaction)
    }
}

/// A transaction that has locked some runs. Unless it commits, its connection is closed, and
/// Postgres rolls it back.
#[derive(Debug)]
pub struct IngestTransaction {
    connection: PoolConnection<Postgres>,
    states: HashMap<Uuid, RunState>,
    deadline: Instant,
    is_committed: bool,
}

impl IngestTransaction {
    /// How far the locked runs are stored. Runs that do not exist are left out.
    pub fn states(&self) -> &HashMap<Uuid, RunState> {
        &self.states
    }

    /// Writes the batch and commits. If it fails, nothing is stored or, if the connection broke
    /// during the commit, all of it: the watermark says which.
    pub async fn commit(mut self, batch: IngestBatch) -> Result<Ingested, StoreError> {
        let written = write(&mut self.connection, batch);
        let ingested = within(self.deadline, written).await?;
        self.is_committed = true;
        Ok(ingested)
    }
}

impl Drop for IngestTransaction {
    fn drop(&mut self) {
        if !self.is_committed {
            // An interrupted COPY or transaction may have left the protocol out of step.
            self.connection.close_on_drop();
        }
    }
}

/// Waits for a step of a transaction until its deadline.
async fn within<T>(
    deadline: Instant,
    step: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout_at(deadline, step).await.unwrap_or_else(|_elapsed| {
        let kind = std::io::ErrorKind::TimedOut;
        let text = format!("the transaction did not end within {TRANSACTION_DEADLINE:?}");
        Err(sqlx::Error::Io(std::io::Error::new(kind, text)).into())
    })
}

async fn lock(
    connection: &mut PgConnection,
    runs: &[Uuid],
    producers: &[(Uuid, Uuid)],
    query: &'static str,
) -> Result<HashMap<Uuid, RunState>, StoreError> {
    sqlx::query("BEGIN").execute(&mut *connection).await?;
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(LOCK_WAIT)
        .execute(&mut *connection)
        .await?;
    locked_states(connection, runs, producers, query).await
}

async fn write(connection: &mut PgConnection, batch: IngestBatch) -> Result<Ingested, StoreError> {
    // Store the rows.
    if batch.rows.rows() > 0 {
        let mut copy = connection.copy_in_raw(COPY_EVENTS).await?;
        copy.send(batch.rows.finish()).await?;
        copy.finish().await?;
    }
    write_dead_letters(connection, &batch.dead_letters).await?;
    write_producers(connection, &batch.producers).await?;
    // Let the statuses of agents, variations and runs follow what is stored.
    let revived = revive_lost_agents(connection, &batch.last_published).await?;
    write_variations(connection, &batch.changes).await?;
    let ended = write_watermarks(connection, &batch.progress).await?;
    // Read what to announce, then commit all of it.
    let changed = batch.changes.iter().map(|change| change.run).collect();
    let updates = run_updates(connection, changed, revived).await?;
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(Ingested { ended, updates })
}

async fn write_dead_letters(
    connection: &mut PgConnection,
    letters: &[DeadLetter],
) -> Result<(), StoreError> {
    for letter in letters {
        sqlx::query(
            "INSERT INTO dead_letters (run_id, epoch, seq, reason, body, producer, producer_seq)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(letter.run)
        .bind(signed(letter.id.epoch))
        .bind(signed(letter.id.seq))
        .bind(without_nul(&letter.reason))
        .bind(&letter.body)
        .bind(letter.source.map(|(producer, _)| producer))
        .bind(letter.source.map(|(_, seq)| signed(seq)))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn write_producers(
    connection: &mut PgConnection,
    producers: &[(Uuid, Uuid, ProducerState)],
) -> Result<(), StoreError> {
    if producers.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&ProducerState) -> i64| -> Vec<i64> {
        producers.iter().map(|(_, _, state)| of(state)).collect()
    };
    sqlx::query(
        "INSERT INTO producers (run_id, producer, seq, events, bytes, checksum)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
         ON CONFLICT (run_id, producer) DO UPDATE SET seq = excluded.seq, events = excluded.events,
                bytes = excluded.bytes, checksum = excluded.checksum",
    )
    .bind(producers.iter().map(|(run, _, _)| *run).collect::<Vec<_>>())
    .bind(producers.iter().map(|(_, producer, _)| *producer).collect::<Vec<_>>())
    .bind(column(|state| signed(state.seq)))
    .bind(column(|state| signed(state.seal.events)))
    .bind(column(|state| signed(state.seal.bytes)))
    .bind(column(|state| i64::from(state.seal.checksum.0)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes the states of variations, and derives the status of each run from all of its variations.
async fn write_variations(
    connection: &mut PgConnection,
    changes: &[VariationChange],
) -> Result<(), StoreError> {
    for change in changes {
        sqlx::query(
            "INSERT INTO variations AS v (run_id, variation, status, started_at, ended_at, exit_code,
                    signal, message, missing, intact)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (run_id, variation) DO UPDATE SET status = excluded.status,
                    started_at = coalesce(v.started_at, excluded.started_at),
                    ended_at = excluded.ended_at, exit_code = excluded.exit_code,
                    signal = excluded.signal, message = excluded.message,
                    missing = excluded.missing, intact = excluded.intact",
        )
        .bind(change.run)
        .bind(i16::try_from(change.variation).unwrap_or(i16::MAX))
        .bind(change.status.name())
        .bind(change.started_ms.and_then(timestamp))
        .bind(change.ended_ms.and_then(timestamp))
        .bind(change.exit_code)
        .bind(change.signal)
        .bind(change.message.as_deref().map(without_nul))
        .bind(change.missing.map(signed))
        .bind(change.intact)
        .execute(&mut *connection)
        .await?;
    }
    if changes.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE runs r SET
                status = CASE WHEN NOT v.over THEN CASE WHEN v.begun THEN 'running' ELSE 'pending' END
                              WHEN v.failed THEN 'failed' WHEN v.cancelled THEN 'cancelled'
                              ELSE 'succeeded' END,
                started_at = coalesce(r.started_at, v.started_at),
                ended_at = CASE WHEN v.over THEN v.ended_at END,
                sealed_at = CASE WHEN v.over AND v.intact THEN now() END
           FROM (SELECT run_id, bool_and(status IN ('succeeded', 'failed', 'cancelled')) AS over,
                        bool_or(status <> 'pending') AS begun, bool_or(status = 'failed') AS failed,
                        bool_or(status = 'cancelled') AS cancelled, min(started_at) AS started_at,
                        coalesce(max(ended_at), now()) AS ended_at,
                        bool_and(coalesce(intact, true)) AS intact
                   FROM variations WHERE run_id = ANY($1) GROUP BY run_id) AS v
          WHERE r.id = v.run_id",
    )
    .bind(changes.iter().map(|change| change.run).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_watermarks(
    connection: &mut PgConnection,
    progress: &[WatermarkAdvance],
) -> Result<HashMap<Uuid, Option<String>>, StoreError> {
    if progress.is_empty() {
        return Ok(HashMap::new());
    }
    let column = |of: fn(&WatermarkAdvance) -> u64| -> Vec<i64> {
        progress.iter().map(|one| signed(of(one))).collect()
    };
    let rows: Vec<(Uuid, Option<String>)> = sqlx::query_as(
        "UPDATE runs r SET epoch = p.epoch, seq = p.seq, watermark_producer = p.producer,
                watermark_producer_seq = p.producer_seq, events = r.events + p.events,
                bytes = r.bytes + p.bytes
           FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[])
                AS p(run, epoch, seq, producer, producer_seq, events, bytes)
          WHERE r.id = p.run
         RETURNING r.id, CASE WHEN r.ended_at IS NOT NULL THEN r.status END",
    )
    .bind(progress.iter().map(|one| one.run).collect::<Vec<_>>())
    .bind(column(|one| one.watermark.epoch))
    .bind(column(|one| one.watermark.seq))
    .bind(progress.iter().map(|one| one.watermark_event.0).collect::<Vec<_>>())
    .bind(column(|one| one.watermark_event.1))
    .bind(column(|one| one.events))
    .bind(column(|one| one.bytes))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// A producer's clock may show any time; a time beyond the year 9999 is left out.
fn timestamp(unix_ms: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(signed(unix_ms))
        .filter(|timestamp| timestamp.timestamp() < 253_402_300_800)
}
