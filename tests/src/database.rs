//! Reads Postgres directly: what it holds is the final truth that every story checks.

use std::collections::BTreeMap;

use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, Row as _};
use uuid::Uuid;

use crate::event_lines;
use crate::eventually::eventually;

/// The database of one stack.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
}

/// A barrier in the database: matching statements wait at it until the story releases them.
#[derive(Debug)]
pub struct Barrier {
    database: Database,
    name: String,
    table: String,
    key: i64,
    connection: PgConnection,
}

impl Barrier {
    /// Waits until a statement waits at the barrier.
    pub async fn wait_reached(&self) {
        let waiting = format!(
            "SELECT least(count(*), 1) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                AND objid = {} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            self.key
        );
        self.database.wait_for_number(&waiting, 1).await;
    }

    /// Terminates the sessions that wait at the barrier, so that their statements never run, and
    /// then removes it. For use after their client was killed: Postgres notices a dead client only
    /// when the current statement has ended.
    pub async fn terminate_waiters(self) {
        let waiting = format!(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_locks
              WHERE locktype = 'advisory' AND NOT granted AND objid = {0}
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            self.key
        );
        let ended = self.database.query_number(&waiting).await;
        assert!(ended > 0, "no statement waits at barrier {}", self.name);
        self.database.wait_for_number(&waiting, 0).await;
        self.release().await;
    }

    /// Removes the barrier; waiting statements continue.
    pub async fn release(self) {
        let Self {
            database,
            name,
            table,
            connection,
            ..
        } = self;
        connection.close().await.expect("the lock is released");
        // The statement that waited holds the table until it is done.
        database
            .execute(&format!(
                "DROP TRIGGER {name} ON {table}; DROP FUNCTION {name}();"
            ))
            .await;
    }
}

/// One stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its id in the run.
    pub id: EventId,
    /// Its producer.
    pub producer: Uuid,
    /// Its seq within the producer.
    pub producer_seq: u64,
    /// The number of its kind.
    pub kind: i16,
    /// Its line of JSON.
    pub body: Vec<u8>,
}

/// An entry or a line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its event id.
    pub id: EventId,
    /// Why it could not be read.
    pub reason: String,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// The row of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Its status.
    pub status: String,
    /// The last stored event.
    pub watermark: EventId,
    /// The count of stored events.
    pub events: u64,
    /// Whether all events are stored and agree with what the producers reported.
    pub sealed: bool,
}

impl Database {
    /// Connects to the database at this URL.
    pub async fn connect(url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(2).connect(url).await;
        Self {
            pool: pool.expect("the story's database"),
        }
    }

    /// Executes a statement without the services' knowledge.
    pub async fn execute(&self, statement: &str) {
        let done = sqlx::raw_sql(statement).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Makes all statements that `when` describes, such as `UPDATE ON archives`, wait before they
    /// run until the story releases them. So a story can do something in between, above all kill a
    /// process.
    pub async fn barrier(&self, name: &str, when: &str, condition: &str) -> Barrier {
        let key = i64::from(name.bytes().fold(7_u16, |key, byte| {
            key.wrapping_mul(31).wrapping_add(byte.into())
        }));
        let mut connection = self.pool.acquire().await.expect("a connection").detach();
        let lock = format!("SELECT pg_advisory_lock({key})");
        connection
            .execute(&*lock)
            .await
            .expect("a lock of the story's own");
        self.execute(&format!(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF {condition} THEN PERFORM pg_advisory_xact_lock({key}); END IF;
                 IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER {name} BEFORE {when} EXECUTE FUNCTION {name}();"
        ))
        .await;
        Barrier {
            database: self.clone(),
            name: name.to_owned(),
            table: when
                .split(" ON ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next())
                .unwrap_or_default()
                .to_owned(),
            key,
            connection,
        }
    }

    /// The first column, as text, of all rows of a query.
    pub async fn query_strings(&self, query: &str) -> Vec<String> {
        let found = sqlx::query_scalar(query).fetch_all(&self.pool).await;
        found.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The number that a query returns.
    pub async fn query_number(&self, query: &str) -> i64 {
        let answer = sqlx::query_scalar(query).fetch_one(&self.pool).await;
        answer.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Waits until a query returns this number.
    pub async fn wait_for_number(&self, query: &str, expected: i64) {
        eventually(query, async || {
            let number = self.query_number(query).await;
            (number == expected)
                .then_some(())
                .ok_or_else(|| format!("{number} instead of {expected}"))
        })
        .await;
    }

    /// The stored events of a run, in order.
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

    /// The row of a run.
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

    /// The dead letters of a run, in order of arrival.
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
    pub async fn delete(&self, run: Uuid) {
        for statement in [
            "DELETE FROM events WHERE run_id = $1",
            "DELETE FROM runs WHERE id = $1",
        ] {
            let deleted = sqlx::query(statement).bind(run).execute(&self.pool).await;
            deleted.expect("the run is deleted");
        }
    }

    /// Locks the row of a run, as a person does with `psql`, until the returned transaction ends.
    pub async fn lock_run(&self, run: Uuid) -> sqlx::Transaction<'static, sqlx::Postgres> {
        let mut transaction = self.pool.begin().await.expect("a transaction");
        let lock = sqlx::query("SELECT FROM runs WHERE id = $1 FOR UPDATE").bind(run);
        let locked = lock.execute(&mut *transaction).await;
        locked.expect("the row is locked");
        transaction
    }

    /// Waits until all events up to `id` are stored.
    pub async fn wait_stored(&self, run: Uuid, id: EventId) {
        eventually(&format!("Postgres holds event {id}"), async || {
            let at = self.run(run).await.watermark;
            let there = (at >= id).then_some(());
            there.ok_or_else(|| format!("its watermark is {at}"))
        })
        .await;
    }

    /// Waits until at least this many events are stored.
    pub async fn wait_stored_events(&self, run: Uuid, count: u64) {
        eventually(&format!("Postgres holds {count} events"), async || {
            let events = self.run(run).await.events;
            let there = (events >= count).then_some(());
            there.ok_or_else(|| format!("{events} are stored"))
        })
        .await;
    }

    /// Waits until a run is sealed, checks that each producer's events are stored exactly once and
    /// in order, and returns them.
    pub async fn wait_sealed(&self, run: Uuid) -> Vec<StoredEvent> {
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

/// Checks that the seqs of each producer are 1, 2, 3 and so on, in the order of the event ids.
/// `gap` events that Runcast itself inserts have no producer.
pub fn assert_each_once(events: &[StoredEvent]) {
    let mut last = BTreeMap::new();
    for event in events.iter().filter(|event| !event.producer.is_nil()) {
        let seq = last.entry(event.producer).or_insert(0);
        assert_eq!(
            event.producer_seq,
            *seq + 1,
            "event {} must follow its producer's previous one",
            event.id
        );
        *seq = event.producer_seq;
    }
}

/// The text of all events of a kind, concatenated.
pub fn text(events: &[StoredEvent], kind: Kind) -> Vec<u8> {
    let of_kind = events.iter().filter(|event| event.kind == kind.number());
    of_kind
        .flat_map(|event| {
            let value: Value = serde_json::from_slice(&event.body).expect("a stored line is JSON");
            event_lines::text_bytes(&value)
        })
        .collect()
}

/// The events of one variation.
pub fn variation_events(events: &[StoredEvent], variation: usize) -> Vec<StoredEvent> {
    let is_own = |event: &&StoredEvent| {
        let line: Value = serde_json::from_slice(&event.body).expect("a stored line is JSON");
        line["variation"] == variation
    };
    events.iter().filter(is_own).cloned().collect()
}
