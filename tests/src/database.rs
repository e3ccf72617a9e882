//! What Postgres holds, read directly: the truth that every story ends with.

use std::collections::BTreeMap;

use runcast_common::event::Kind;
use runcast_common::id::EventId;
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::eventually::eventually;
use crate::lines;

/// The database of one stack.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
}

/// One stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Where it stands in the run.
    pub id: EventId,
    /// Who published it.
    pub producer: Uuid,
    /// The producer's own seq.
    pub producer_seq: u64,
    /// Number of its kind.
    pub kind: i16,
    /// Its line.
    pub body: Vec<u8>,
}

/// An entry or a line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stood.
    pub id: EventId,
    /// What was wrong with it.
    pub reason: String,
    /// What it held.
    pub body: Vec<u8>,
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Its status.
    pub status: String,
    /// Last stored event.
    pub watermark: EventId,
    /// Stored events.
    pub events: u64,
    /// True if everything is stored and agrees with what the producers said.
    pub sealed: bool,
}

impl Database {
    /// Reads the database at this address.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub async fn connect(url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(2).connect(url).await;
        Self {
            pool: pool.expect("the story's database"),
        }
    }

    /// Changes the database behind the back of the services.
    ///
    /// # Panics
    /// If the statement fails.
    pub async fn tamper(&self, statement: &str) {
        let done = sqlx::raw_sql(statement).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// The first column, text, of what a query finds, as somebody with `psql` sees it.
    ///
    /// # Panics
    /// If the query fails.
    pub async fn ask(&self, query: &str) -> Vec<String> {
        let found = sqlx::query_scalar(query).fetch_all(&self.pool).await;
        found.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Asks for one number.
    ///
    /// # Panics
    /// If the query fails or answers something else.
    pub async fn number(&self, query: &str) -> i64 {
        let answer = sqlx::query_scalar(query).fetch_one(&self.pool).await;
        answer.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Waits until a query answers this number.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn comes_to(&self, query: &str, expected: i64) {
        eventually(query, async || {
            let number = self.number(query).await;
            (number == expected)
                .then_some(())
                .ok_or_else(|| format!("{number} instead of {expected}"))
        })
        .await;
    }

    /// The stored events of a run, in order.
    ///
    /// # Panics
    /// If they cannot be read.
    pub async fn events(&self, run: Uuid) -> Vec<StoredEvent> {
        let statement = "SELECT epoch, seq, producer, producer_seq, kind, body FROM events \
                         WHERE run_id = $1 ORDER BY epoch, seq";
        let rows = sqlx::query(statement).bind(run).fetch_all(&self.pool).await;
        let rows = rows.expect("the events of a run");
        let event = |row: &sqlx::postgres::PgRow| StoredEvent {
            id: EventId::new(number(row, "epoch"), number(row, "seq")),
            producer: row.get("producer"),
            producer_seq: number(row, "producer_seq"),
            kind: row.get("kind"),
            body: row.get("body"),
        };
        rows.iter().map(event).collect()
    }

    /// How a run stands.
    ///
    /// # Panics
    /// If it cannot be read.
    pub async fn run(&self, run: Uuid) -> StoredRun {
        let statement = "SELECT status, epoch, seq, events, sealed_at IS NOT NULL AS sealed FROM runs WHERE id = $1";
        let row = sqlx::query(statement).bind(run).fetch_one(&self.pool).await;
        let row = row.expect("the row of a run");
        StoredRun {
            status: row.get("status"),
            watermark: EventId::new(number(&row, "epoch"), number(&row, "seq")),
            events: number(&row, "events"),
            sealed: row.get("sealed"),
        }
    }

    /// The dead letters of a run, in the order in which they came.
    ///
    /// # Panics
    /// If they cannot be read.
    pub async fn dead_letters(&self, run: Uuid) -> Vec<DeadLetter> {
        let statement =
            "SELECT epoch, seq, reason, body FROM dead_letters WHERE run_id = $1 ORDER BY id";
        let rows = sqlx::query(statement).bind(run).fetch_all(&self.pool).await;
        let letter = |row: &sqlx::postgres::PgRow| DeadLetter {
            id: EventId::new(number(row, "epoch"), number(row, "seq")),
            reason: row.get("reason"),
            body: row.get("body"),
        };
        rows.expect("dead letters").iter().map(letter).collect()
    }

    /// Deletes a run with all its events, as retention does.
    ///
    /// # Panics
    /// If it cannot be deleted.
    pub async fn delete(&self, run: Uuid) {
        for statement in [
            "DELETE FROM events WHERE run_id = $1",
            "DELETE FROM runs WHERE id = $1",
        ] {
            let deleted = sqlx::query(statement).bind(run).execute(&self.pool).await;
            deleted.expect("the run is deleted");
        }
    }

    /// Waits until everything up to `id` is stored.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn holds(&self, run: Uuid, id: EventId) {
        eventually(&format!("Postgres holds event {id}"), async || {
            let at = self.run(run).await.watermark;
            let there = (at >= id).then_some(());
            there.ok_or_else(|| format!("its watermark is {at}"))
        })
        .await;
    }

    /// Waits until at least so many events are stored.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn holds_events(&self, run: Uuid, count: u64) {
        eventually(&format!("Postgres holds {count} events"), async || {
            let events = self.run(run).await.events;
            let there = (events >= count).then_some(());
            there.ok_or_else(|| format!("{events} are stored"))
        })
        .await;
    }

    /// Waits until a run is sealed, checks that every producer's events are stored exactly once and
    /// in order, and gives them.
    ///
    /// # Panics
    /// When that takes too long, or an event is missing, doubled or out of order.
    pub async fn sealed(&self, run: Uuid) -> Vec<StoredEvent> {
        eventually(&format!("run {run} is sealed"), async || {
            let state = self.run(run).await;
            let sealed = state.sealed.then_some(());
            sealed.ok_or_else(|| format!("{state:?}"))
        })
        .await;
        let events = self.events(run).await;
        assert_each_once(&events);
        let counted = self.run(run).await.events;
        assert_eq!(
            counted,
            events.len() as u64,
            "the run's own count of events"
        );
        events
    }
}

fn number(row: &sqlx::postgres::PgRow, column: &str) -> u64 {
    u64::try_from(row.get::<i64, _>(column)).expect("a count is not negative")
}

/// Checks that the seqs of every producer are 1, 2, 3 and so on, in the order of the event ids. What
/// Runcast itself noted about a hole has no producer.
///
/// # Panics
/// If one is missing, doubled or out of order.
pub fn assert_each_once(events: &[StoredEvent]) {
    let mut last = BTreeMap::new();
    for event in events.iter().filter(|event| !event.producer.is_nil()) {
        let seq = last.entry(event.producer).or_insert(0);
        assert_eq!(
            event.producer_seq,
            *seq + 1,
            "event {} comes next",
            event.id
        );
        *seq = event.producer_seq;
    }
}

/// What the events of a kind say, put together.
///
/// # Panics
/// If a line is no event.
#[must_use]
pub fn text(events: &[StoredEvent], kind: Kind) -> Vec<u8> {
    let of_kind = events.iter().filter(|event| event.kind == kind.number());
    of_kind
        .flat_map(|event| {
            let value: Value = serde_json::from_slice(&event.body).expect("a stored line is JSON");
            lines::chunk(&value)
        })
        .collect()
}

/// The events of one variation.
///
/// # Panics
/// If a line is no event.
#[must_use]
pub fn of_variation(events: &[StoredEvent], variation: usize) -> Vec<StoredEvent> {
    let is_own = |event: &&StoredEvent| {
        let line: Value = serde_json::from_slice(&event.body).expect("a stored line is JSON");
        line["variation"] == variation
    };
    events.iter().filter(is_own).cloned().collect()
}
