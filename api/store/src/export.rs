//! Reads what an export writes: the selected runs of a span of time with all their events, in one
//! snapshot, through cursors on the server.
//!
//! Bounds: a fetch returns [`FETCH_ROWS`] rows, each at most 256 KiB. A snapshot lives as long as
//! its value. Postgres ends it if the next fetch does not come within [`IDLE_TRANSACTION_TIMEOUT`].

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::Transaction;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use super::error::StoreError;
use super::store::Store;

/// Rows that one fetch returns.
const FETCH_ROWS: &str = "256";

/// Longest pause between two fetches. It is long enough to notice a full disk or a stopped process.
const IDLE_TRANSACTION_TIMEOUT: &str = "60s";

/// Which runs to read.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these; all if empty.
    pub runs: Vec<Uuid>,
    /// Only runs with all of these labels.
    pub labels: Map<String, Value>,
}

/// The span of time in which a run was created, which its id tells. The end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourSpan {
    /// First moment.
    pub from: DateTime<Utc>,
    /// First moment after it.
    pub until: DateTime<Utc>,
}

/// A run.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its labels, as a JSON object.
    pub labels: String,
    /// Its status.
    pub status: String,
    /// Its variations, as a JSON array.
    pub variations: String,
    /// The user or token that created it.
    pub created_by: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its first variation started.
    pub started_at: Option<DateTime<Utc>>,
    /// When its last variation ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// True if all events are stored and match the counts of their producers.
    pub sealed: bool,
    /// Stored events.
    pub events: i64,
    /// Bytes of their lines.
    pub bytes: i64,
}

from_row!(RunRecord {
    id,
    name,
    labels,
    status,
    variations,
    created_by,
    created_at,
    started_at,
    ended_at,
    sealed,
    events,
    bytes
});

/// An event.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// Its run.
    pub run_id: Uuid,
    /// First part of its id.
    pub epoch: i64,
    /// Second part of its id.
    pub seq: i64,
    /// The producer that published it.
    pub producer: Uuid,
    /// Its seq at this producer.
    pub producer_seq: i64,
    /// Number of its kind.
    pub kind: i16,
    /// The variation that it belongs to.
    pub variation: i16,
    /// Severity, if it has one.
    pub level: Option<String>,
    /// The producer's clock.
    pub time: DateTime<Utc>,
    /// Redis' clock at the append.
    pub appended_at: DateTime<Utc>,
    /// The line, as the producer wrote it.
    pub body: Vec<u8>,
}

from_row!(EventRecord {
    run_id,
    epoch,
    seq,
    producer,
    producer_seq,
    kind,
    variation,
    level,
    time,
    appended_at,
    body
});

/// The condition for a table `r` of runs: a span and a selection.
macro_rules! selected {
    () => {
        "r.id >= uuid_v7_floor($1) AND r.id < uuid_v7_floor($2)
           AND (cardinality($3::uuid[]) = 0 OR r.id = ANY($3)) AND ($4::jsonb IS NULL OR r.labels @> $4)"
    };
}

const SELECT_FIRST_RUN: &str = concat!(
    "SELECT min(r.id::text)::uuid FROM runs r WHERE ",
    selected!()
);

const DECLARE_RUNS: &str = concat!(
    "DECLARE exported_runs NO SCROLL CURSOR FOR
     SELECT r.id, r.name, r.labels::text AS labels, r.status, r.created_by, r.created_at, r.started_at,
            r.ended_at, r.sealed_at IS NOT NULL AS sealed, r.events, r.bytes,
            coalesce((SELECT jsonb_agg(to_jsonb(v) - 'run_id' ORDER BY v.variation)
                        FROM variations v WHERE v.run_id = r.id), '[]')::text AS variations
       FROM runs r WHERE ",
    selected!(),
    " ORDER BY r.id"
);

const DECLARE_EVENTS: &str = concat!(
    "DECLARE exported_events NO SCROLL CURSOR FOR
     SELECT e.run_id, e.epoch, e.seq, e.producer, e.producer_seq, e.kind, e.variation, e.level, e.time,
            e.appended_at, e.body
       FROM runs r JOIN events e ON e.run_id = r.id
      WHERE e.run_id >= uuid_v7_floor($1) AND e.run_id < uuid_v7_floor($2) AND ",
    selected!(),
    " ORDER BY e.run_id, e.epoch, e.seq"
);

impl Selection {
    fn bind<'a>(&self, query: &'a str, span: HourSpan) -> Query<'a, Postgres, PgArguments> {
        let labels = (!self.labels.is_empty()).then(|| Value::from(self.labels.clone()));
        sqlx::query(query)
            .bind(span.from)
            .bind(span.until)
            .bind(self.runs.clone())
            .bind(labels)
    }
}

/// The selected rows of a span, as they were at one moment.
#[derive(Debug)]
pub struct Snapshot {
    transaction: Transaction<'static, Postgres>,
}

impl Store {
    /// Id of the first selected run of a span, if there is one.
    pub async fn first_selected(
        &self,
        selection: &Selection,
        span: HourSpan,
    ) -> Result<Option<Uuid>, StoreError> {
        let row = selection
            .bind(SELECT_FIRST_RUN, span)
            .fetch_one(&self.pool)
            .await?;
        Ok(sqlx::Row::try_get(&row, 0)?)
    }

    /// Opens a snapshot of the selected runs of a span and their events.
    pub async fn snapshot(
        &self,
        selection: &Selection,
        span: HourSpan,
    ) -> Result<Snapshot, StoreError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut transaction = self.pool.begin_with(begin).await?;
        sqlx::query("SELECT set_config('idle_in_transaction_session_timeout', $1, true)")
            .bind(IDLE_TRANSACTION_TIMEOUT)
            .execute(&mut *transaction)
            .await?;
        for cursor in [DECLARE_RUNS, DECLARE_EVENTS] {
            let declared = selection.bind(cursor, span);
            declared.execute(&mut *transaction).await?;
        }
        Ok(Snapshot { transaction })
    }
}

impl Snapshot {
    /// The next runs, by id; none at the end. After an error the snapshot cannot be used any more.
    pub async fn runs(&mut self) -> Result<Vec<RunRecord>, StoreError> {
        let fetch = format!("FETCH {FETCH_ROWS} FROM exported_runs");
        let rows = sqlx::query_as(&fetch).fetch_all(&mut *self.transaction);
        Ok(rows.await?)
    }

    /// The next events, by run and id; none at the end. After an error the snapshot cannot be used
    /// any more.
    ///
    /// Archived runs have no rows here. The export reads their objects and merges their events into
    /// this order.
    pub async fn events(&mut self) -> Result<Vec<EventRecord>, StoreError> {
        let fetch = format!("FETCH {FETCH_ROWS} FROM exported_events");
        let rows = sqlx::query_as(&fetch).fetch_all(&mut *self.transaction);
        Ok(rows.await?)
    }
}
