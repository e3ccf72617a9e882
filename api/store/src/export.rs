//! What an export reads: the selected runs of a span of time and all their events, in one snapshot, through
//! cursors on the server.
//!
//! Bounds: [`FETCH`] rows come at once, of at most 256 KiB each; the snapshot lives as long as its value,
//! and ends by itself if nobody asks for more within [`PAUSE_LIMIT`].

use crate::from_row::from_row;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::Transaction;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use super::store::{Store, StoreError};

/// Rows that come at once.
const FETCH: &str = "256";

/// Longest pause between two fetches: the time in which a full disk or a stopped process is noticed.
const PAUSE_LIMIT: &str = "60s";

/// Which runs to read.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these; all if empty.
    pub runs: Vec<Uuid>,
    /// Only runs with all of these labels.
    pub labels: Map<String, Value>,
}

/// The time in which a run was created, from its id: the end does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourSpan {
    /// First moment.
    pub from: DateTime<Utc>,
    /// First moment behind it.
    pub until: DateTime<Utc>,
}

/// A run.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// Its id.
    pub id: Uuid,
    /// What a person called it.
    pub name: String,
    /// A JSON object.
    pub labels: String,
    /// Where it stands.
    pub status: String,
    /// Its variations, as a JSON array.
    pub variations: String,
    /// Who created it.
    pub created_by: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its first variation started.
    pub started_at: Option<DateTime<Utc>>,
    /// When its last variation ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Everything is stored and agrees with what its producers counted.
    pub sealed: bool,
    /// Events stored.
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
    /// Where it stands there, first part.
    pub epoch: i64,
    /// Where it stands there, second part.
    pub seq: i64,
    /// Who published it.
    pub producer: Uuid,
    /// Its number there.
    pub producer_seq: i64,
    /// Number of its kind.
    pub kind: i16,
    /// Which attempt it belongs to.
    pub variation: i16,
    /// Severity, if it has one.
    pub level: Option<String>,
    /// The producer's clock.
    pub time: DateTime<Utc>,
    /// Redis' clock.
    pub appended_at: DateTime<Utc>,
    /// The line as the producer wrote it.
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

/// Which rows of `runs r` are meant, given a span and a selection.
macro_rules! selected {
    () => {
        "r.id >= uuid_v7_floor($1) AND r.id < uuid_v7_floor($2)
           AND (cardinality($3::uuid[]) = 0 OR r.id = ANY($3)) AND ($4::jsonb IS NULL OR r.labels @> $4)"
    };
}

const FIRST: &str = concat!(
    "SELECT min(r.id::text)::uuid FROM runs r WHERE ",
    selected!()
);

const RUNS: &str = concat!(
    "DECLARE exported_runs NO SCROLL CURSOR FOR
     SELECT r.id, r.name, r.labels::text AS labels, r.status, r.created_by, r.created_at, r.started_at,
            r.ended_at, r.sealed_at IS NOT NULL AS sealed, r.events, r.bytes,
            coalesce((SELECT jsonb_agg(to_jsonb(v) - 'run_id' ORDER BY v.variation)
                        FROM variations v WHERE v.run_id = r.id), '[]')::text AS variations
       FROM runs r WHERE ",
    selected!(),
    " ORDER BY r.id"
);

const EVENTS: &str = concat!(
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
    /// When the first selected run of a span was created, if there is one.
    pub async fn first_selected(
        &self,
        selection: &Selection,
        span: HourSpan,
    ) -> Result<Option<Uuid>, StoreError> {
        let row = selection.bind(FIRST, span).fetch_one(&self.pool).await?;
        Ok(sqlx::Row::try_get(&row, 0)?)
    }

    /// The selected runs of a span and their events, as they are now.
    pub async fn snapshot(
        &self,
        selection: &Selection,
        span: HourSpan,
    ) -> Result<Snapshot, StoreError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut transaction = self.pool.begin_with(begin).await?;
        sqlx::query("SELECT set_config('idle_in_transaction_session_timeout', $1, true)")
            .bind(PAUSE_LIMIT)
            .execute(&mut *transaction)
            .await?;
        for cursor in [RUNS, EVENTS] {
            let declared = selection.bind(cursor, span);
            declared.execute(&mut *transaction).await?;
        }
        Ok(Snapshot { transaction })
    }
}

impl Snapshot {
    /// The next runs, by id; none when there are no more.
    ///
    /// # Errors
    /// [`StoreError`]; the snapshot is then of no more use.
    pub async fn runs(&mut self) -> Result<Vec<RunRecord>, StoreError> {
        let fetch = format!("FETCH {FETCH} FROM exported_runs");
        let rows = sqlx::query_as(&fetch).fetch_all(&mut *self.transaction);
        Ok(rows.await?)
    }

    /// The next events, by run and id; none when there are no more.
    ///
    /// Archived runs have no rows here: what reads their objects is to be asked beside this, and its
    /// events handed out in their place in the order.
    ///
    /// # Errors
    /// [`StoreError`]; the snapshot is then of no more use.
    pub async fn events(&mut self) -> Result<Vec<EventRecord>, StoreError> {
        let fetch = format!("FETCH {FETCH} FROM exported_events");
        let rows = sqlx::query_as(&fetch).fetch_all(&mut *self.transaction);
        Ok(rows.await?)
    }
}
