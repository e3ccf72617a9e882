//! How far runs are stored: read by persisters before they read a stream, and again under a lock
//! before they store.
//!
//! A run may have had very many producers. So a transaction reads those that it stores something
//! of, and a bounded number of others.

use std::collections::HashMap;

use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::seal::{Checksum, Seal};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::error::StoreError;
use super::store::{Store, unsigned};

/// Producers of a run that a transaction reads besides those with events in it: what a persister
/// that died had stored of them may not have been reported yet.
const MAX_OTHER_PRODUCERS: i64 = 100;

/// Producers of a run that [`Store::newest_run_states`] reads.
const MAX_NEWEST_PRODUCERS: i64 = 1000;

/// How far a run is stored.
#[derive(Debug, Clone, Default)]
pub struct RunState {
    /// Id of the last stored event.
    pub watermark: EventId,
    /// Producer of that event, and its seq there.
    pub watermark_event: Option<(Uuid, u64)>,
    /// The final status, once every variation has one.
    pub ended: Option<String>,
    /// True if the run is marked as lost. Events that its agents publish bring it back.
    pub lost: bool,
    /// What is stored of each producer that was asked for.
    pub producers: HashMap<Uuid, ProducerState>,
}

/// What is stored of a producer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProducerState {
    /// Highest stored seq.
    pub seq: u64,
    /// Count, bytes and checksum of its stored events.
    pub seal: Seal,
}

const SELECT_STATES: &str = "SELECT id, epoch, seq, watermark_producer, watermark_producer_seq,
        CASE WHEN ended_at IS NOT NULL THEN status END AS ended, status = 'lost' AS lost
   FROM runs WHERE id = ANY($1) ORDER BY id";

/// Locks the runs that are read.
pub(super) const SELECT_STATES_FOR_UPDATE: &str =
    "SELECT id, epoch, seq, watermark_producer, watermark_producer_seq,
        CASE WHEN ended_at IS NOT NULL THEN status END AS ended, status = 'lost' AS lost
   FROM runs WHERE id = ANY($1) ORDER BY id FOR UPDATE";

/// The same without runs that other sessions have locked.
pub(super) const SELECT_UNLOCKED_STATES_FOR_UPDATE: &str =
    "SELECT id, epoch, seq, watermark_producer, watermark_producer_seq,
        CASE WHEN ended_at IS NOT NULL THEN status END AS ended, status = 'lost' AS lost
   FROM runs WHERE id = ANY($1) ORDER BY id FOR UPDATE SKIP LOCKED";

impl Store {
    /// How far these runs are stored, with all of their producers. Runs that do not exist are left
    /// out.
    pub async fn run_states(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, RunState>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut states = watermarks(&mut connection, SELECT_STATES, runs).await?;
        let query = sqlx::query_as(
            "SELECT run_id, producer, seq, events, bytes, checksum
               FROM producers WHERE run_id = ANY($1)",
        );
        let rows = query.bind(runs).fetch_all(&mut *connection).await?;
        add_producers(&mut states, rows)?;
        Ok(states)
    }

    /// Like [`Store::run_states`], but of each run with the newest producers alone, at most
    /// [`MAX_NEWEST_PRODUCERS`]: a run may have had very many.
    pub async fn newest_run_states(
        &self,
        runs: &[Uuid],
    ) -> Result<HashMap<Uuid, RunState>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut states = watermarks(&mut connection, SELECT_STATES, runs).await?;
        let query = sqlx::query_as(
            "SELECT p.run_id, p.producer, p.seq, p.events, p.bytes, p.checksum
               FROM unnest($1::uuid[]) AS r (id)
                    CROSS JOIN LATERAL (SELECT * FROM producers WHERE run_id = r.id
                                         ORDER BY producer DESC LIMIT $2) AS p",
        );
        let query = query.bind(runs).bind(MAX_NEWEST_PRODUCERS);
        add_producers(&mut states, query.fetch_all(&mut *connection).await?)?;
        Ok(states)
    }

    /// Like [`Store::run_states`], but without the producers: [`RunState::producers`] is empty.
    pub async fn watermarks(&self, runs: &[Uuid]) -> Result<HashMap<Uuid, RunState>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        watermarks(&mut connection, SELECT_STATES, runs).await
    }

    /// The highest stored seq of a producer; 0 if none is stored.
    pub async fn durable_seq(&self, run: Uuid, producer: Uuid) -> Result<u64, StoreError> {
        let seq: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM producers WHERE run_id = $1 AND producer = $2")
                .bind(run)
                .bind(producer)
                .fetch_optional(&self.pool)
                .await?;
        Ok(seq.map_or(0, unsigned))
    }
}

/// Locks these runs and reads how far they are stored, by one of the two queries for that. The
/// states name these producers, each with its run, and the newest others of each run.
pub(super) async fn locked_states(
    connection: &mut PgConnection,
    runs: &[Uuid],
    producers: &[(Uuid, Uuid)],
    query: &'static str,
) -> Result<HashMap<Uuid, RunState>, StoreError> {
    let mut states = watermarks(connection, query, runs).await?;
    let (of_runs, producers): (Vec<Uuid>, Vec<Uuid>) = producers.iter().copied().unzip();
    let query = sqlx::query_as(
        "SELECT p.run_id, p.producer, p.seq, p.events, p.bytes, p.checksum
           FROM unnest($1::uuid[], $2::uuid[]) AS asked (run_id, producer)
                JOIN producers AS p USING (run_id, producer)
          UNION
         SELECT p.run_id, p.producer, p.seq, p.events, p.bytes, p.checksum
           FROM unnest($3::uuid[]) AS r (id)
                CROSS JOIN LATERAL (SELECT * FROM producers WHERE run_id = r.id
                                     ORDER BY producer DESC LIMIT $4) AS p",
    );
    let query = query.bind(&of_runs).bind(&producers);
    let query = query.bind(runs).bind(MAX_OTHER_PRODUCERS);
    add_producers(&mut states, query.fetch_all(connection).await?)?;
    Ok(states)
}

async fn watermarks(
    connection: &mut PgConnection,
    query: &'static str,
    runs: &[Uuid],
) -> Result<HashMap<Uuid, RunState>, StoreError> {
    let rows = sqlx::query(query).bind(runs).fetch_all(connection).await?;
    let mut states = HashMap::with_capacity(rows.len());
    for row in rows {
        let producer: Option<Uuid> = row.try_get("watermark_producer")?;
        let producer_seq: Option<i64> = row.try_get("watermark_producer_seq")?;
        let state = RunState {
            watermark: EventId::new(
                unsigned(row.try_get("epoch")?),
                unsigned(row.try_get("seq")?),
            ),
            watermark_event: producer.zip(producer_seq.map(unsigned)),
            ended: row.try_get("ended")?,
            lost: row.try_get("lost")?,
            producers: HashMap::new(),
        };
        states.insert(row.try_get::<Uuid, _>("id")?, state);
    }
    Ok(states)
}

/// Run, producer, seq, and its seal: events, bytes, checksum.
type ProducerRow = (Uuid, Uuid, i64, i64, i64, i64);

fn add_producers(
    states: &mut HashMap<Uuid, RunState>,
    rows: Vec<ProducerRow>,
) -> Result<(), StoreError> {
    for (run, producer, seq, events, bytes, checksum) in rows {
        let checksum = u32::try_from(checksum)
            .map_err(|error| StoreError::Unexpected(format!("checksum of {producer}: {error}")))?;
        let seal = Seal {
            events: unsigned(events),
            bytes: unsigned(bytes),
            checksum: Checksum(checksum),
        };
        if let Some(state) = states.get_mut(&run) {
            let known = ProducerState {
                seq: unsigned(seq),
                seal,
            };
            state.producers.insert(producer, known);
        }
    }
    Ok(())
}
